"""The run list as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspector.store.reader import RunSummary


def rows(summaries: Sequence[RunSummary]) -> list[dict[str, Any]]:
    """One row a run, in the order given."""
    return [
        {
            "name": summary.name,
            "status": summary.status,
            "model": summary.config.get("model", "your script"),
            "data": summary.config.get("data", ""),
            "optimizer": summary.config.get("optimizer", ""),
            "steps": summary.step,
            "created": datetime.fromtimestamp(summary.created).astimezone(),
            "note": summary.reason,
        }
        for summary in summaries
    ]
