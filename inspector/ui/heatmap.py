"""Heat map pages: modules against steps, and the history of the row that was clicked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import streamlit as st

from inspector.charts import boards, histograms
from inspector.charts.specs import matrix
from inspector.quantities import scope_of
from inspector.store.reader import Run
from inspector.ui import presenter
from inspector.ui.board import board
from inspector.ui.context import current_run, escape, is_live
from inspector.views.absent import absent, reasons
from inspector.views.health import module_health
from inspector.views.modules import ROOT

By = Literal["subject", "module"]


def heatmap_page(
    title: str,
    notice: str,
    choices: dict[str, tuple[str, By]],
    *,
    detail: Callable[[str, str], None],
) -> None:
    """One page.

    Args:
        title: heading.
        notice: one sentence that says how to read the map.
        choices: label → quantity and what a row is; the first is shown at the start.
        detail: draws what belongs to a run and a clicked row below the map.
    """
    with current_run() as run:
        name, hidden = run.name, blind(run)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.subheader(title, width="content")
        labels = list(choices)
        label = labels[0]
        if len(labels) > 1:
            label = st.segmented_control(
                "Quantity",
                labels,
                default=label,
                required=True,
                key=f"{title}/quantity",
                label_visibility="collapsed",
            )
    st.caption(notice)
    quantity, by = choices[label]
    if hidden and scope_of(quantity) == "module":
        st.info(escape(hidden), icon=":material/visibility_off:")
        return
    key = f"{title}/{name}/{quantity}"
    clicked = board(charts=(matrix(quantity, by=by),), run=name, key=key)
    with current_run() as run:
        without = absent(run, quantity)
    if without:
        st.caption(escape(without))
    chosen = f"{title}/{name}/row"
    if clicked is not None:
        st.session_state[chosen] = clicked.subject
    row = st.session_state.get(chosen)
    if row is None:
        st.caption("Click a row, or choose it with the arrow keys and Enter, for its history.")
        return
    st.markdown(f"#### {escape(row or '(model)')}")
    detail(name, row)


def blind(run: Run) -> str:
    """Why no module's output can be seen, and what helps; empty while some can."""
    modules = module_health(run.document("modules"))
    if not modules or any(module.sight != "blind" for module in modules):
        return ""
    return f"Outputs of modules are not seen. {modules[0].reason} {modules[0].remedy}"


def parameter_detail(run_name: str, row: str) -> None:
    """History and histograms of a parameter, or of one of the parameters of a module."""
    with current_run() as run:
        names = parameters_of(run, row)
        why = reasons(run, "grad_norm")
    if not names:
        st.info("This module has no parameters of its own.")
        return
    parameter = names[0]
    if len(names) > 1:
        parameter = st.segmented_control(
            "Parameter", names, default=parameter, required=True, key=f"parameter/{row}",
            format_func=lambda name: escape(name.removeprefix(f"{row}.")),
            label_visibility="collapsed",
        )  # fmt: skip
    reason = why.get(parameter.rpartition(".")[0] or ROOT, "")
    charts = boards.parameter(parameter, hint=f"Not measured: {reason}." if reason else "")
    board(charts=charts, run=run_name, key=f"parameter/{run_name}/{parameter}")
    _distributions(("gradient", "weight"), parameter)


def module_detail(run_name: str, row: str) -> None:
    """History and histogram of a module's output."""
    board(charts=boards.module(row), run=run_name, key=f"module/{run_name}/{row}")
    _distributions(("activation",), row)


def parameters_of(run: Run, row: str) -> list[str]:
    """Names of the parameters that a row stands for: itself, or those directly in a module."""
    recorded = [key.subject for key in run.keys() if key.quantity == "grad_norm"]  # noqa: SIM118
    if row in recorded:
        return [row]
    return [name for name in recorded if name.rpartition(".")[0] == row]


@st.fragment(run_every="5s")
def _distributions(kinds: Sequence[str], subject: str) -> None:
    with current_run() as run:
        found, live = {kind: run.histograms(kind, subject) for kind in kinds}, is_live(run)
    shown = {kind: items for kind, items in found.items() if items}
    if not shown:
        st.caption(
            "The first histogram appears shortly."
            if live
            else "No histogram was taken: they come at most once a second."
        )
        return
    drawn = []
    for kind, items in shown.items():
        title = f"{kind.capitalize()} values"
        if len(items) > 1:
            over_time = histograms.distribution(items, title=f"{title} over steps")
            drawn.append((f"distribution/{kind}/{subject}", over_time))
        drawn.append((f"newest/{kind}/{subject}", histograms.newest(items[-1], title=title)))
    columns = st.columns(2)
    for place, (key, figure) in enumerate(drawn):
        columns[place % 2].plotly_chart(presenter.enlarged(figure), key=key)
