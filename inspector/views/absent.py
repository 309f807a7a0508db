"""Which rows of a heat map have no numbers, and why."""

from __future__ import annotations

from inspector.quantities import scope_of
from inspector.store.reader import Run
from inspector.views.health import module_health
from inspector.views.modules import ROOT, recorded

_NAMED = 6  # modules that are named for each reason
_ALWAYS = "weight_norm"  # needs no gradient
_ZERO = "update_ratio"  # is 0 then


def absent(run: Run, quantity: str) -> str:
    """One sentence on the modules of which a quantity is not measured; empty if there are none."""
    found: dict[str, list[str]] = {}
    for path, reason in reasons(run, quantity).items():
        found.setdefault(reason, []).append(path)
    parts = [f"{_listed(paths)} ({reason})" for reason, paths in found.items()]
    said = "Not updated" if quantity == _ZERO else "Without numbers"
    return f"{said}: {'; '.join(parts)}." if parts else ""


def reasons(run: Run, quantity: str) -> dict[str, str]:
    """By module path (the root is ``(model)``), why a quantity of it is not measured."""
    sights = {module.path: module.sight for module in module_health(run.document("modules"))}
    if scope_of(quantity) == "module":
        return {path: sight for path, sight in sights.items() if sight in ("blind", "never ran")}
    if quantity == _ALWAYS:
        return {}
    parameters = (run.document("parameters") or {}).get("parameters", [])
    owners = {str(parameter["module"]) or ROOT for parameter in parameters}
    found = {row.path: "frozen" for row in recorded(run) if row.state == "frozen"}
    found |= {path: sight for path, sight in sights.items() if sight == "never ran"}
    return {path: why for path, why in found.items() if path in owners}


def _listed(paths: list[str]) -> str:
    more = len(paths) - _NAMED
    return ", ".join(paths[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
