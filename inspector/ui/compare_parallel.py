"""Parallel coordinates of the compared runs, and the filter that brushes them."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from inspector.charts.parallel import parallel
from inspector.views.compare_parallel import Upright


def coordinates(names: Sequence[str], axes: Sequence[Upright]) -> None:
    """Draws a line for each run, and what brushes them: a range or a choice for each axis."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("#### Parallel coordinates", width="content")
        with st.popover("Filter", icon=":material/filter_alt:"):
            wanted = [_wanted(axis) for axis in axes]
    kept = [
        all(keeps) for keeps in zip(
            *(axis.keeps(some) for axis, some in zip(axes, wanted, strict=True)), strict=True
        )
    ]  # fmt: skip
    said = "A line for each run through its settings and, in bold, its results."
    if not all(kept):
        said = f"{sum(kept)} of {len(names)} runs pass the filter; the others are grey."
    st.caption(said)
    st.plotly_chart(
        parallel(names, axes, dark=st.context.theme.type == "dark", kept=kept),
        key="compare/parallel",
        config={"displayModeBar": False},
    )


def _wanted(axis: Upright) -> list[str]:
    """What is asked of an axis: both ends of a range, or some of its values."""
    options = axis.options
    key = f"compare/filter/{axis.title}/{'/'.join(options)}"
    if len(options) < 2:
        return []
    if axis.ordered:
        ends = (options[0], options[-1])
        return list(st.select_slider(axis.title, options, ends, key=key))
    return list(st.pills(axis.title, options, selection_mode="multi", key=key))
