"""Runs every rule over a run and puts causes before their symptoms."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from inspector.diagnosis.causes import EXPLAINS
from inspector.diagnosis.finding import Finding
from inspector.diagnosis.limits import read_limits
from inspector.diagnosis.observations import Observations, RunLike
from inspector.diagnosis.ranks import OneRank, ranks_of, together
from inspector.diagnosis.registry import Thresholds, all_rules, with_overrides

_TOLERANCE = 5  # steps by which a cause may be noticed after its symptom


def diagnose(run: RunLike, *, thresholds: Thresholds | None = None) -> list[Finding]:
    """The findings of a run, live or finished: causes first, then by confidence.

    Every rank of a distributed run is looked at; ``Finding.ranks`` says where it was seen.

    Args:
        run: what :func:`inspector.open_run` gives.
        thresholds: other limits, keyed ``code.name`` (see :func:`inspector.diagnosis.thresholds`);
            None takes those in ``diagnosis.json`` beside the run.

    Raises:
        ConfigError: there is no threshold of that name, or the file cannot be used.
    """
    if thresholds is None and (path := getattr(run, "path", None)) is not None:
        thresholds = read_limits(path.parent)
    limits = with_overrides(all_rules(), thresholds)
    ranks = ranks_of(run)
    if len(ranks) < 2:
        return ranked(_found(Observations(run), limits))
    return ranked(
        together(
            (rank, finding)
            for rank in ranks
            for finding in _found(Observations(OneRank(run, rank)), limits)
        )
    )


def _found(observations: Observations, limits: Mapping[str, Thresholds]) -> list[Finding]:
    return [
        finding
        for code, rule in all_rules().items()
        for finding in rule.check(observations, limits[code])
    ]


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Links symptoms to causes and sorts: unexplained ones first, notes last."""
    found = sorted(findings, key=lambda finding: -finding.confidence)
    linked = [_linked(finding, found) for finding in found]
    return sorted(linked, key=_place)


def _linked(finding: Finding, found: Sequence[Finding]) -> Finding:
    causes = [other for other in found if _is_cause(other, finding)]
    if finding.symptom:  # of a chain of causes the first
        causes.sort(key=lambda cause: any(_is_cause(other, cause) for other in found))
    cause = causes[0] if causes else None
    follows = tuple(dict.fromkeys(o.code for o in found if not o.symptom and _is_cause(finding, o)))
    return dataclasses.replace(
        finding,
        consequences=follows,
        consequence_of=cause.code if cause is not None else None,
    )


def _is_cause(cause: Finding, symptom: Finding) -> bool:
    """Whether one finding explains the other: a known link, and a cause that is serious."""
    return (
        cause.level != "note"
        and (symptom.symptom or symptom.code in EXPLAINS.get(cause.code, ()))
        and cause.code != symptom.code
        and cause.step <= symptom.step + _TOLERANCE
        and not (
            symptom.level != "note"
            and cause.code in EXPLAINS.get(symptom.code, ())
            and _later(cause, symptom)
        )
    )


def _later(cause: Finding, symptom: Finding) -> bool:
    """Of two findings that could explain each other, the earlier (or surer) one does."""
    return (cause.step, -cause.confidence) > (symptom.step, -symptom.confidence)


def _place(finding: Finding) -> tuple[bool, bool, float]:
    explained = finding.consequence_of is not None
    return finding.level == "note", explained, -finding.confidence
