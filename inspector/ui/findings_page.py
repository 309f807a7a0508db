"""The body of the Findings page: what is wrong with the run, why, and what to do."""

from __future__ import annotations

import plotly.graph_objects as go
import streamlit as st

from inspector.commands import Command
from inspector.diagnosis import Finding, Remedy, diagnose
from inspector.errors import CommandError, StoreError
from inspector.store.control import ControlWriter
from inspector.ui.context import current_run, escape, is_live, runs_dir
from inspector.views import findings as view

_REFRESH = "3s"
_ICONS = {
    "critical": ":material/error:",
    "warning": ":material/warning:",
    "note": ":material/info:",
}


def findings_page() -> None:
    """Draws the page for the run that this tab looks at; renewed while the run is live."""
    with current_run() as run:
        live = is_live(run)
    st.subheader("Findings")
    st.fragment(_findings, run_every=_REFRESH if live else None)()


def _findings() -> None:
    with current_run() as run:
        found, live = diagnose(run), is_live(run)
    if not found:
        st.success("Nothing suspicious has been found so far.")
        return
    serious = [finding for finding in found if finding.level != "note"]
    for position, finding in enumerate(serious):
        _card(finding, position, live=live)
    notes = found[len(serious) :]
    if notes:
        with st.expander(f"Notes ({len(notes)})", expanded=not serious):
            for position, finding in enumerate(notes):
                _card(finding, len(serious) + position, live=live)


def _card(finding: Finding, position: int, *, live: bool) -> None:
    card = view.cards([finding])[0]
    with st.container(border=True):
        st.markdown(f"{_ICONS[card.level]} **{escape(card.heading)}** · {card.confidence:.0%} sure")
        st.markdown(escape(card.verdict))
        if card.because:
            st.caption(f"Follows from: {escape(card.because)}")
        if card.leads_to:
            st.caption(f"Explains: {escape(', '.join(card.leads_to))}")
        if card.place:
            st.caption(escape(card.place))
        _evidence(finding, position)
        if card.explanation:
            with st.expander("Why this hurts"):
                st.markdown(escape(card.explanation))
                st.caption(escape(card.reference))
        for number, remedy in enumerate(card.controls):
            _button(remedy, f"remedy-{position}-{card.code}-{number}", live=live)
        for remedy in card.advice:
            st.markdown(escape(remedy.text))
            if remedy.code:
                st.code(remedy.code, language="python")


def _evidence(finding: Finding, position: int) -> None:
    for evidence in finding.evidence:
        st.caption(escape(evidence.text))
    with current_run() as run:
        drawn = next(filter(None, (view.curve(run, one) for one in finding.evidence)), None)
    if drawn is None or len(drawn.steps) < 2:
        return
    figure = go.Figure(go.Scatter(x=drawn.steps, y=drawn.values, mode="lines"))
    if drawn.last > drawn.first:
        figure.add_vrect(x0=drawn.first, x1=drawn.last, opacity=0.08, line_width=0, fillcolor="red")
    figure.update_layout(height=160, margin={"l": 8, "r": 8, "t": 8, "b": 8}, showlegend=False)
    st.plotly_chart(figure, key=f"evidence-{position}-{finding.code}")


def _button(remedy: Remedy, key: str, *, live: bool) -> None:
    pressed = st.button(
        escape(remedy.text),
        key=key,
        disabled=not live,
        help=None if live else "The run has ended; this can be set on a running training.",
    )
    if not pressed:
        return
    try:
        _send(remedy)
    except (CommandError, StoreError) as error:
        st.error(escape(str(error)))
    else:
        st.toast("Sent; it is applied at the next step.")


def _send(remedy: Remedy) -> None:
    with current_run() as run:
        writer = ControlWriter(runs_dir() / run.name)
    try:
        writer.send(Command(name="set", control=remedy.control, value=remedy.value))
    finally:
        writer.close()
