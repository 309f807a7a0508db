"""``torch-inspector diagnose RUN [--json]``: findings in words or JSON; the exit code for CI.

The command line registers :func:`diagnose_command` and ends the process with what it returns.
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path

from inspector.diagnosis.finding import Finding
from inspector.diagnosis.findings import diagnose
from inspector.diagnosis.limits import read_limits
from inspector.diagnosis.place import place
from inspector.errors import ConfigError
from inspector.store.reader import open_run

_MARKS = {"critical": "✗", "warning": "!", "note": "·"}


def diagnose_command(
    run: str | Path,
    write: Callable[[str], object],
    *,
    runs_dir: str | Path = "runs",
    as_json: bool = False,
    changed: Sequence[str] = (),
    rules: Sequence[Path] = (),
) -> int:
    """Writes the findings of a run, with ``write`` for each line; gives the exit code.

    The code is 1 when a finding is critical, else 0.

    Args:
        changed: limits as ``code.name=value``, beside those of ``diagnosis.json``.
        rules: Python files that register rules; they are executed.

    Raises:
        RunNotFound: there is no such run.
        StoreError: it cannot be read.
        ConfigError: there is no such limit or file.
    """
    for path in rules:
        if not path.is_file():
            raise ConfigError(f"Expected a Python file with rules, but there is none at {path}.")
        runpy.run_path(str(path))
    with open_run(run, runs_dir) as opened:
        limits = read_limits(opened.path.parent) | dict(map(_limit, changed))
        findings = diagnose(opened, thresholds=limits)
        name = opened.name
    if as_json:
        content = {"run": name, "findings": [finding.to_dict() for finding in findings]}
        write(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        for line in in_words(name, findings):
            write(line)
    return int(any(finding.level == "critical" for finding in findings))


def _limit(assignment: str) -> tuple[str, float]:
    name, _, value = assignment.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError as error:
        raise ConfigError(
            f"Expected code.name=number as a threshold, but got {assignment!r}."
        ) from error


def in_words(name: str, findings: Sequence[Finding]) -> list[str]:
    """The findings as lines for a terminal; symptoms are indented under their cause."""
    if not findings:
        return [f"{name}: nothing found."]
    lines = [f"{name}: {len(findings)} finding{'s' if len(findings) > 1 else ''}"]
    for finding in findings:
        symptom = finding.consequence_of is not None
        indent = "    " if symptom else ""
        because = f" (follows from {finding.consequence_of})" if symptom else ""
        lines.append(
            f"{indent}{_MARKS[finding.level]} {finding.level} {finding.code} "
            f"[{finding.confidence:.0%}]{because}"
        )
        lines.append(f"{indent}    {finding.title}")
        lines += [f"{indent}    seen: {evidence.text}" for evidence in finding.evidence]
        if where := place(finding):
            lines.append(f"{indent}    where: {', '.join(where)}")
        if not symptom:
            lines += [
                f"{indent}    do: {remedy.text}" + (f"  {remedy.code}" if remedy.code else "")
                for remedy in finding.remedies[:2]
            ]
    return lines
