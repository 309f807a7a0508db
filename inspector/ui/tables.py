"""How tall a table is, so that no row is cut and none is empty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from inspector.ui import presenter

_LETTERS = (
    122  # of a row, with the room between columns, that fit beside the sidebar at 1280 pixels
)
_ROW, _BORDERS = 35, 3  # pixels, of Streamlit's tables
_BAR = 10


def table_height(rows: int, *, most: int, bar: bool = False) -> int:
    """Pixels of a table with its head.

    Args:
        most: rows that are seen at once; the others are scrolled to.
        bar: whether it is wider than its place: the scroll bar would lie over the last row.
    """
    row = round(_ROW * presenter.scale())
    return row * (min(rows, most) + 1) + _BORDERS + _BAR * bar


def is_wide(rows: Iterable[Mapping[str, Any]], heads: Mapping[str, str]) -> bool:
    """Whether a table needs more room than there is on a projector.

    Args:
        heads: the columns that are shown, by their names in the rows.
    """
    longest = {column: len(head) for column, head in heads.items()}
    for row in rows:
        for column in heads:
            longest[column] = max(longest[column], len(str(row[column])))
    return sum(longest.values()) + 2 * len(longest) > _LETTERS
