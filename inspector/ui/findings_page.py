"""The body of the Findings page: what is wrong with the run, why, and what to do."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from inspector.charts.evidence import evidence_figure
from inspector.diagnosis import Finding, diagnose
from inspector.diagnosis.ranks import OneRank
from inspector.errors import ConfigError
from inspector.ui import presenter, repair
from inspector.ui.context import current_run, escape, is_live
from inspector.ui.limits import limits_panel
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
        name, live = run.name, is_live(run)
    st.subheader("Findings")
    st.fragment(_findings, run_every=_REFRESH if live else None)(name)
    repair.lr_finder_panel(name, live=live)
    with st.expander("Limits of the rules", icon=":material/tune:"):
        limits_panel()


def _findings(name: str) -> None:
    with current_run() as run:
        live, events, config = is_live(run), run.events(), run.config
        try:
            found = diagnose(run)
        except ConfigError as error:
            st.error(escape(str(error)), icon=":material/tune:")
            found = diagnose(run, thresholds={})
        modules = (run.document("modules") or {}).get("modules", [])
        activations = (run.document("structure") or {}).get("activations", [])
        steps = run.series("loss", max_points=2).steps
    repair.answered(config, found, int(steps[-1]) + 1 if len(steps) else 0)
    repair.verdicts(events)
    repair.nan_card(name)
    if not found:
        st.success("Nothing suspicious has been found so far.")
        return
    draw = partial(
        _card, name=name, config=config, modules=modules, activations=activations, live=live
    )
    serious = [finding for finding in found if finding.level != "note"]
    for position, finding in enumerate(serious):
        draw(finding, position)
    notes = found[len(serious) :]
    if notes:
        with st.expander(f"Notes ({len(notes)})", expanded=not serious):
            for position, finding in enumerate(notes):
                draw(finding, len(serious) + position)


def _card(
    finding: Finding,
    position: int,
    *,
    name: str,
    config: dict[str, Any],
    modules: list[dict[str, Any]],
    activations: list[dict[str, Any]],
    live: bool,
) -> None:
    card = view.cards([finding])[0]
    with st.container(border=True, key=f"finding-{card.code}-{position}"):
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
            st.markdown(escape(card.explanation))
            st.caption(f"Source: {escape(card.reference)}")
        key = f"remedy-{position}-{card.code}"
        repair.buttons(finding, name, config, modules, activations, live=live, key=key)


def _evidence(finding: Finding, position: int) -> None:
    """Every number beside its limit, and the picture of the first two that can be drawn."""
    for evidence in finding.evidence:
        st.caption(escape(evidence.text))
    with current_run() as run:
        source = OneRank(run, finding.ranks[0]) if finding.ranks else run
        drawn = [view.picture(source, evidence) for evidence in finding.evidence]
    pictures = [one for one in drawn if one is not None][:2]
    if not pictures:
        return
    for number, (column, one) in enumerate(zip(st.columns(len(pictures)), pictures, strict=True)):
        column.plotly_chart(
            presenter.enlarged(evidence_figure(one.drawing, window=one.window)),
            key=f"evidence-{position}-{finding.code}-{number}",
            config={"displayModeBar": False},
        )
