"""Where and since when something is wrong, in words."""

from __future__ import annotations

from inspector.diagnosis.finding import Finding
from inspector.diagnosis.ranks import named
from inspector.events.source import source_line

_BEGIN = frozenset({"dead_relu", "saturated_activation", "nonfinite"})
"""What may come with the first weights or only with training: both are said."""


def place(finding: Finding) -> list[str]:
    """Module, operation, source line, step, ranks; none when the run is meant from its start."""
    parts = []
    if finding.module is not None:
        parts.append(f"module {finding.module}" if finding.module else "the model")
    if finding.op:
        parts.append(finding.op)
    if finding.file:
        parts.append(source_line(finding.file, finding.line))
    if finding.step or finding.code in _BEGIN:
        parts.append(f"since step {finding.step:,}" if finding.step else "since the first step")
    if finding.ranks:
        parts.append(named(finding.ranks))
    return parts
