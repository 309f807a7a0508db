"""The list of runs: choose one to open, keep or take away, or several to compare."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import sha256

import streamlit as st

from inspector.errors import StoreError
from inspector.store.housekeeping import TRASH, rename_run, trash_run
from inspector.store.reader import RunSummary
from inspector.ui import context, runs
from inspector.ui.export import export_panel
from inspector.ui.folded import folded
from inspector.ui.fork import fork_panel
from inspector.ui.tables import table_height
from inspector.views.runs import matching, rows

_EVERY = "3s"
_MANY = 8
_NAME = (130, 290)  # pixels: beside a longer name the other columns have no room
_LETTER = 8
_CHOSEN = "runs/chosen"


def runs_page() -> None:
    """Draws the page."""
    st.subheader("Runs")
    summaries = context.summaries()
    if not summaries:
        st.info(
            "No runs in this folder yet. Start one on the Start page, or call "
            "`inspector.watch(model, optimizer)` in a script."
        )
        return
    text, statuses = _filters(summaries) if len(summaries) > _MANY else ("", [])
    live = any(summary.status in context.LIVE for summary in summaries)
    st.fragment(_table, run_every=_EVERY if live else "10s")(text, statuses)
    by_name = {summary.name: summary for summary in summaries}
    chosen = [name for name in st.session_state.get(_CHOSEN, []) if name in by_name]
    if len(chosen) == 1:
        _one(by_name[chosen[0]])
    elif chosen:
        _several(chosen)
    else:
        st.caption(
            "Mark a run with the box at its left to open, export, continue or delete it; "
            "mark several to compare them."
        )


def _filters(summaries: list[RunSummary]) -> tuple[str, list[str]]:
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    text = left.text_input(
        "Find", key="runs/find", placeholder="Find by name, model, data, optimizer",
        label_visibility="collapsed",
    )  # fmt: skip
    present = list(dict.fromkeys(summary.status for summary in summaries))
    statuses = right.pills(
        "Status", present, selection_mode="multi", key="runs/status", label_visibility="collapsed"
    )
    return text, list(statuses)


def _table(text: str, statuses: list[str]) -> None:
    """The table; what is marked in it stays marked when runs come and go."""
    shown = matching(context.summaries(), text, statuses)
    names = [summary.name for summary in shown]
    before: list[str] = st.session_state.get(_CHOSEN, [])
    listed = rows(shown)

    def known(column: str) -> bool:
        """Runs of scripts alone have neither data nor optimizer to show."""
        return any(row[column] not in ("", None) for row in listed)

    noted = known("note")
    longest = max(map(len, names), default=0)
    # The selection counts rows, so another set of rows is another table.
    version = sha256("/".join(names).encode()).hexdigest()[:12]
    picked = st.dataframe(
        listed,
        hide_index=True,
        on_select="rerun",
        selection_mode="multi-row",
        selection_default={
            "selection": {"rows": [names.index(name) for name in before if name in names]}
        },
        key=f"runs/table/{version}",
        placeholder="",
        height=table_height(len(listed), most=13, bar=noted),
        column_config={
            "name": st.column_config.TextColumn(
                "Run", pinned=True, width=min(max(_LETTER * longest + 16, _NAME[0]), _NAME[1])
            ),
            "status": st.column_config.TextColumn("Status"),
            "model": st.column_config.TextColumn("Model"),
            "data": st.column_config.TextColumn("Data") if known("data") else None,
            "optimizer": st.column_config.TextColumn("Optimizer") if known("optimizer") else None,
            "lr": st.column_config.NumberColumn("Learning rate", format="%.4g")
            if known("lr")
            else None,
            "steps": st.column_config.NumberColumn("Steps", format="localized"),
            "created": st.column_config.DatetimeColumn("Started", format="YYYY-MM-DD HH:mm:ss"),
            "note": st.column_config.TextColumn("Note", width="large") if noted else None,
        },
    )
    marked = [names[row] for row in picked.selection.rows if row < len(names)]
    kept = [name for name in before if name in marked]
    chosen = kept + [name for name in marked if name not in kept]
    if chosen != before:
        st.session_state[_CHOSEN] = chosen
        st.rerun()


def _one(summary: RunSummary) -> None:
    name = summary.name
    live = summary.status in context.LIVE
    with st.container(border=True, key="runs-one"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{context.escape(name)}**", width="content")
            if st.button("Open", type="primary", icon=":material/open_in_new:", key="runs/open"):
                runs.watch(name)
            if st.button("Compare …", icon=":material/stacked_line_chart:", key="runs/with"):
                _compare([name])
            _rename(name, live)
            _delete(name, live)
        _panels(name)


def _panels(name: str) -> None:
    """What is folded away; a panel is drawn only while it is open."""
    for title, icon, panel in (
        ("Go on: resume or fork", ":material/fork_right:", fork_panel),
        ("Export", ":material/download:", export_panel),
    ):
        folded(title, partial(panel, name), icon=icon, key=f"runs/{title}/{name}")


def _several(names: list[str]) -> None:
    with st.container(border=True, key="runs-several", horizontal=True,
                      vertical_alignment="center"):  # fmt: skip
        st.markdown(f"**{len(names)} runs**", width="content")
        if st.button("Compare", type="primary", icon=":material/stacked_line_chart:",
                     key="runs/compare"):  # fmt: skip
            _compare(names)
        if st.button("Clear", key="runs/clear"):
            _forget()
            st.rerun()


def _compare(names: list[str]) -> None:
    st.session_state.pop("compare/runs", None)
    st.switch_page(st.session_state["pages"]["compare"], query_params={"runs": names})


def _rename(name: str, live: bool) -> None:
    with st.popover(
        "Rename", icon=":material/edit:", disabled=live, help="Stop it first." if live else None
    ):
        wanted = st.text_input("New name", name, key=f"runs/rename/{name}")
        if st.button("Rename", key="runs/rename/do"):
            _change(lambda: rename_run(context.runs_dir(), name, wanted))


def _delete(name: str, live: bool) -> None:
    with st.popover(
        "Delete", icon=":material/delete:", disabled=live, help="Stop it first." if live else None
    ):
        st.markdown(f"Move **{context.escape(name)}** to `{TRASH}` in the runs folder?")
        st.caption("Nothing is erased: move the folder back to see the run again.")
        if st.button("Delete", type="primary", key="runs/delete/do"):
            _change(lambda: trash_run(context.runs_dir(), name))


def _change(act: Callable[[], object]) -> None:
    try:
        act()
    except StoreError as error:
        st.error(context.escape(str(error)), icon=":material/block:")
        return
    _forget()
    if st.session_state.get("run") not in {summary.name for summary in context.summaries()}:
        st.session_state.pop("run", None)
    st.rerun()


def _forget() -> None:
    st.session_state[_CHOSEN] = []
    for key in list(st.session_state):
        if str(key).startswith("runs/table/"):
            del st.session_state[key]
