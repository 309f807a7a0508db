"""The confusion matrix of a run that was asked for one, renewed with each validation."""

from __future__ import annotations

import streamlit as st

from inspector.ui.context import opened

_PARTS = {"val": "validation part", "test": "test part"}
_SECONDS = 3.0


def confusion_panel(name: str, *, wanted: bool, live: bool) -> None:
    """The newest matrix of a run; nothing for runs that do not measure it."""
    if wanted:
        st.fragment(_panel, run_every=_SECONDS if live else None)(name)


def _panel(name: str) -> None:
    from inspector.charts.confusion import confusion_figure

    with opened(name) as run:
        document = run.document("confusion_matrix")
        steps = run.documents("confusion_matrix")
    if document is None:
        st.caption("The confusion matrix appears here after the first validation.")
        return
    part = _PARTS.get(str(document.get("part")), "held-out part")
    with st.container(border=True, key=f"confusion-{name}"):
        st.markdown(f"**Confusion matrix** &ensp;:small[{part}, after step {steps[-1][0]}]")
        figure = confusion_figure(document, dark=st.context.theme.type == "dark")
        st.plotly_chart(figure, key=f"confusion-chart/{name}", width="stretch")
