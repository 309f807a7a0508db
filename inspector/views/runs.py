"""The run list as rows of a table, and the part of it that was asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from inspector import catalog
from inspector.config import OPTIMIZER_TITLES
from inspector.views.optimizers import stepped_by

if TYPE_CHECKING:
    from inspector.store.reader import RunSummary

_ORIGIN = {"imported": "imported log"}
_LETTERS = 26  # of a name in the list of runs at the side


def rows(summaries: Sequence[RunSummary]) -> list[dict[str, Any]]:
    """One row a run, in the order given."""
    return [
        {
            "name": summary.name,
            "status": summary.status,
            "model": _short(summary.config.get("model"))
            or _ORIGIN.get(summary.kind, summary.script or "your script"),
            "data": _short(summary.config.get("data")),
            "optimizer": _optimizer(summary),
            "lr": _rate(summary),
            "steps": summary.step,
            "created": datetime.fromtimestamp(summary.created).astimezone(),
            "note": summary.reason,
        }
        for summary in summaries
    ]


def labels(names: Sequence[str]) -> dict[str, str]:
    """Names for a narrow list: of a long one beginning and end, as long as all stay apart."""
    half = (_LETTERS - 1) // 2
    made = {
        name: name if len(name) <= _LETTERS else f"{name[:half]}…{name[-half:]}" for name in names
    }
    return made if len(set(made.values())) == len(made) else {name: name for name in names}


def _short(name: Any) -> str:
    """What a run was made of, one's own without the path that would hide it in a narrow column."""
    text = str(name or "")
    return catalog.title(text) if catalog.is_own(text) else text


def _optimizer(summary: RunSummary) -> str:
    """As PyTorch calls it; of a script what it was watched with."""
    if name := str(summary.config.get("optimizer") or ""):
        return OPTIMIZER_TITLES.get(name, name)
    return stepped_by(summary.optimizers)


def _rate(summary: RunSummary) -> Any:
    """What the run began with: the first controls win, as they do in a fork."""
    first = (summary.config.get("controls") or {}).get("lr")
    found = summary.config.get("lr") if first is None else first
    if found is None and summary.optimizers:
        return summary.optimizers[0].get("lr")
    return found


def matching(
    summaries: Sequence[RunSummary], text: str, statuses: Collection[str] = ()
) -> list[RunSummary]:
    """Runs of these statuses (any, if none is given) that have every word of the text.

    Words are looked for in name, status, script, model, data and optimizer, whatever their case.
    """
    words = text.casefold().split()
    return [
        summary
        for summary in summaries
        if (not statuses or summary.status in statuses)
        and all(word in _text(summary) for word in words)
    ]


def _text(summary: RunSummary) -> str:
    named = (summary.config.get(key, "") for key in ("model", "data"))
    words = (summary.name, summary.status, summary.script, _optimizer(summary), *map(str, named))
    return " ".join(words).casefold()
