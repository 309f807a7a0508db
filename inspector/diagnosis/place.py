"""Where and since when something is wrong, in words."""

from __future__ import annotations

from inspector.diagnosis.finding import Finding
from inspector.diagnosis.ranks import named


def place(finding: Finding) -> list[str]:
    """Module, operation, source line, step, ranks; none when the run is meant from its start."""
    parts = []
    if finding.module is not None:
        parts.append(f"module {finding.module}" if finding.module else "the model")
    if finding.op:
        parts.append(finding.op)
    if finding.file:
        parts.append(f"{finding.file}:{finding.line}")
    if finding.step:
        parts.append(f"since step {finding.step:,}")
    if finding.ranks:
        parts.append(named(finding.ranks))
    return parts
