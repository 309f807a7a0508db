"""Events as a table whose sentences wrap, so that each can be read whole."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from inspector.views.events import EventRow

_STYLE = """<style>
.events { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums;
  font-size: 0.9375rem; }
.events tr { border-bottom: 1px solid color-mix(in srgb, currentColor 18%, transparent); }
.events :is(th, td) { padding: 0.35rem 0.6rem; text-align: left; vertical-align: top;
  border: none; }
.events th { font-weight: 600; }
.events :is(.step, .time, .kind, .level) { white-space: nowrap; }
.events .step { text-align: right; }
.events .words { width: 100%; overflow-wrap: anywhere; }
.events td:is(.kind, .time) { color: color-mix(in srgb, currentColor 75%, transparent); }
.events .warning .level { color: WARNING; font-weight: 600; }
.events .critical .level { color: CRITICAL; font-weight: 600; }
.events .critical .words { font-weight: 600; }
@media (max-width: 700px) {
  .events thead { display: none; }
  .events tr { display: grid; grid-template-columns: 3.6rem auto auto 1fr; column-gap: 0.6rem;
    padding: 0.4rem 0; }
  .events td { padding: 0; }
  .events .words { grid-column: 2 / -1; }
  .events .kind { grid-column: 2; font-size: 0.875rem; }
  .events :is(.time, .level) { font-size: 0.875rem; }
}
</style>"""
_LIGHT = {"WARNING": "#a05a00", "CRITICAL": "#b3243a"}
_DARK = {"WARNING": "#ffb454", "CRITICAL": "#ff8fa3"}


def event_list(rows: Sequence[EventRow]) -> None:
    """Draws the rows in their order; names from models and files are shown as they are."""
    style = _STYLE
    for word, colour in (_DARK if st.context.theme.type == "dark" else _LIGHT).items():
        style = style.replace(word, colour)
    st.html(style)
    levels = any(row.level != "note" for row in rows)
    head = {"step": "Step", "words": "In words", "kind": "What", "time": "Time"}
    head |= {"level": "Level"} if levels else {}
    titles = "".join(f'<th class="{name}">{title}</th>' for name, title in head.items())
    body = "".join(_row(row, levels=levels) for row in rows)
    st.html(f'<table class="events"><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>')


def _row(row: EventRow, *, levels: bool) -> str:
    cells = {"step": f"{row.step:,}", "words": row.text, "kind": row.kind, "time": row.time}
    cells |= {"level": row.level if row.level != "note" else ""} if levels else {}
    inside = "".join(f'<td class="{name}">{escape(text)}</td>' for name, text in cells.items())
    return f'<tr class="{row.level}">{inside}</tr>'
