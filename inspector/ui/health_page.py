"""The page on watching itself: what is seen, what is not, why, what it costs, and how often."""

from __future__ import annotations

import dataclasses

import streamlit as st

from inspector.store.reader import Run
from inspector.ui import presenter
from inspector.ui.commanding import send
from inspector.ui.context import current_run, escape, is_live
from inspector.ui.tables import table_height
from inspector.views import cost as costs
from inspector.views import health as view
from inspector.views.modules import missing

_ICONS = {
    "blind": ":orange[:material/visibility_off:]",
    "never ran": ":gray[:material/block:]",
    "no statistics": ":gray[:material/functions:]",
}
_EVERY = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_COLUMNS = {
    "path": st.column_config.TextColumn("Module", pinned=True),
    "type": st.column_config.TextColumn("Type", width="small"),
    "sight": st.column_config.TextColumn("Seen", width="small"),
    "reason": st.column_config.TextColumn("Why", width="large"),
    "remedy": st.column_config.TextColumn("What helps", width="large"),
}


def badge(run: Run) -> None:
    """The badge for the head of a page; nothing before the first step."""
    found = view.health_badge(run)
    if found is None:
        return
    good = found.level == "good"
    icon = ":material/visibility:" if good else ":material/visibility_off:"
    st.badge(found.text, icon=icon, color="green" if good else "orange")


def health_page() -> None:
    """Draws the page for the run this tab looks at."""
    with current_run() as run:
        live = is_live(run)
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            st.subheader("Hook health", width="content")
            badge(run)
    _refreshed(_sight, live=live)
    st.markdown("##### What watching costs")
    _refreshed(_cost, live=live)


def _refreshed(draw: object, *, live: bool) -> None:
    assert callable(draw)
    st.fragment(draw, run_every="2s" if live else None)()


def _sight() -> None:
    """Counts, and the table of what is not seen."""
    with current_run() as run:
        found, live = view.health(run), is_live(run)
    if not found.modules:
        st.info(missing(live=live))
        return
    with st.container(horizontal=True, gap="large"):
        for label, sight in (
            ("Seen", "seen"),
            ("Without statistics", "no statistics"),
            ("Blind", "blind"),
            ("Never ran", "never ran"),
        ):
            st.metric(label, f"{len(found.of(sight)):,}", width="content")  # type: ignore[arg-type]
    for fault in found.faults:
        st.error(
            f"A part of the inspector, *{escape(fault.probe)}*, failed at step {fault.step} and "
            f"is off: {escape(fault.error)}. Training goes on; please report it."
        )
    if found.late:
        st.warning(
            "Gradients are first seen when the optimizer steps, so perhaps already clipped: no "
            "module hook and no recorded loss announced the backward pass. Call "
            "`watch.record(loss=loss)` before `loss.backward()` to have them before clipping."
        )
    _modules(found)
    if found.parameters:
        st.markdown("##### Parameters without all their numbers")
        st.dataframe(
            [dataclasses.asdict(row) for row in found.parameters],
            hide_index=True,
            column_config={
                "name": st.column_config.TextColumn("Parameter"),
                "reason": st.column_config.TextColumn("Why", width="large"),
            },
        )


def _modules(found: view.Health) -> None:
    groups = view.groups(found.modules)
    if not groups:
        st.success("Every module is seen: outputs, their gradients, shapes and parameters.")
    for group in groups:
        with st.container(border=True, gap="small"):
            st.markdown(f"{_ICONS[group.sight]} **{escape(group.title)}**")
            st.markdown(f"{escape(group.reason)}  \n*What helps:* {escape(group.remedy)}")
    with st.expander("Every module"):
        st.dataframe(
            [dataclasses.asdict(module) for module in found.modules],
            hide_index=True,
            height=table_height(len(found.modules), most=11, bar=bool(groups)),
            column_config=_COLUMNS,
        )


def _cost() -> None:
    """The share of the time, the schedule in words, and how it came to be."""
    from inspector.charts.costs import cost_figure

    with current_run() as run:
        cost = costs.cost(run)
        made = costs.changes(run.events())
        every = costs.capture_every(run)
        windows = costs.cost_windows(run)
        name, live = run.name, is_live(run)
    for sentence in costs.cost_words(cost):
        st.markdown(sentence)
    st.markdown(escape(costs.schedule_words(every, made)))
    if live:
        _how_often(name, every)
    if len(windows) > 1:
        figure = cost_figure(windows, budget=cost.budget)
        steps = windows[0][1] - windows[0][0] + 1
        st.caption(f"Share of the time that watching took, in stretches of {steps:,} steps:")
        st.plotly_chart(
            presenter.enlarged(figure),
            key="health/cost",
            width="stretch",
            config={"displayModeBar": False},
        )
    if made:
        plural = "s" if len(made) > 1 else ""
        with st.expander(f"{len(made)} change{plural} of the schedule"):
            st.dataframe(
                [dataclasses.asdict(change) for change in reversed(made)],
                hide_index=True,
                column_config={
                    "step": st.column_config.NumberColumn("Since step", format="localized"),
                    "probe": st.column_config.TextColumn("Measured"),
                    "every": st.column_config.NumberColumn("Every … steps"),
                    "reason": st.column_config.TextColumn("Why", width="large"),
                },
            )


def _how_often(name: str, every: int) -> None:
    """The choice of the schedule; it follows what was chosen elsewhere."""
    key = f"health/{name}/every/{every}"
    st.selectbox(
        "Measure modules and parameters",
        sorted({*_EVERY, every}),
        index=sorted({*_EVERY, every}).index(every),
        format_func=_spoken,
        key=key,
        width=420,
        on_change=lambda: send(
            name, "set", st.session_state[key], control="capture_every", said="Sent to the run."
        ),
        help="Loss, learning rate and step time are recorded at every step in any case.",
    )


def _spoken(every: int) -> str:
    if not every:
        return f"automatically, within {costs.BUDGET:.0%} of the time"
    return "at every step" if every == 1 else f"every {every:,} steps"
