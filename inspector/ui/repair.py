"""Repairing a run: where a NaN came from, remedies with verdicts, the learning rate finder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from inspector.config import RunConfig
from inspector.diagnosis import Finding
from inspector.errors import InspectorError
from inspector.events import StoredEvent
from inspector.numerals import short
from inspector.ui import presenter
from inspector.ui.commanding import send
from inspector.ui.context import escape, is_live, opened, runs_dir
from inspector.views import repair as view
from inspector.views.actions import Action, actions
from inspector.views.answers import answer
from inspector.views.bundle import zipped
from inspector.views.optimizers import Place, places

_REFRESH = "2s"
_MARK = {
    "recovered": ":green[:material/check_circle:]",
    "better": ":green[:material/trending_up:]",
    "unchanged": ":orange[:material/trending_flat:]",
    "worse": ":red[:material/trending_down:]",
    "unknown": ":gray[:material/help:]",
}


def nan_panel(name: str, *, live: bool) -> None:
    """The origin of the newest NaN and what can be done now; nothing while all is finite."""
    st.fragment(nan_card, run_every=_REFRESH if live else None)(name)


def buttons(
    finding: Finding,
    name: str,
    config: dict[str, Any],
    modules: Sequence[Mapping[str, Any]],
    activations: Sequence[Mapping[str, Any]],
    *,
    live: bool,
    key: str,
) -> None:
    """One button for each thing the app can do about a finding; the rest is advice.

    Advice on a cause is open where there is no button that could be pressed.
    """
    offered = list(actions(finding, config, modules, activations, live=live))
    for number, action in enumerate(offered):
        if action.needs_new_run:
            if st.button(escape(action.label), key=f"{key}-{number}", help=action.about,
                         icon=":material/restart_alt:"):  # fmt: skip
                _prepare(name, config, action)
            continue
        st.button(
            escape(action.label),
            key=f"{key}-{number}",
            icon=":material/build:",
            help=action.about if live else "The run has ended.",
            disabled=not live,
            on_click=send,
            args=(name, action.name, action.value),
            kwargs={"said": "Sent. The verdict comes in fifty steps."},
        )
    advice = [remedy for remedy in finding.remedies if not remedy.control]
    if advice:
        helpless = not any(live or action.needs_new_run for action in offered)
        cause = finding.consequence_of is None
        with st.expander("In your own script", expanded=helpless and cause):
            for remedy in advice:
                st.caption(escape(remedy.text))
                if remedy.code:
                    st.code(remedy.code, language="python")


def _prepare(name: str, config: dict[str, Any], action: Action) -> None:
    """Loads the next run into the Start page, where the change is shown before it starts."""
    settings = {**config, **action.settings}
    settings["follows"] = {"run": name, **settings["follows"]}
    try:
        st.session_state["draft"] = RunConfig.from_dict(settings)
    except InspectorError as error:
        st.error(escape(str(error)), icon=":material/block:")
        return
    st.session_state["draft_version"] = st.session_state.get("draft_version", 0) + 1
    st.switch_page(st.session_state["pages"]["start"])


def answered(config: dict[str, Any], found: list[Finding], steps: int) -> None:
    """Whether this run has mended what an earlier one's finding said."""
    made = answer(config.get("follows") or {}, found, steps)
    if made is not None:
        mark = _MARK.get(made.verdict, ":gray[:material/hourglass_empty:]")
        with st.container(border=True, key="answer"):
            st.markdown(f"{mark} **{escape(made.verdict.capitalize() or 'Wait')}** · "
                        f"{escape(made.text)}")  # fmt: skip
            st.caption(f"Changed: {escape(made.changed)}")


def verdicts(events: list[StoredEvent]) -> None:
    """What came of the newest remedies, fifty steps later; and a refusal of one."""
    refusal(events, "remedy", "rewind")
    for step, verdict in view.verdicts(events)[:3]:
        mark = _MARK.get(verdict.verdict, _MARK["unknown"])
        st.markdown(f"{mark} **Step {step}** · {escape(verdict.text)}")


def refusal(events: list[StoredEvent], *commands: str) -> None:
    """Why the newest of these commands was not done, if it was not."""
    refused = view.refused(events, *commands)
    if refused is not None:
        step, reason = refused
        st.warning(f"Not done at step {step:,}: {escape(reason)}", icon=":material/block:")


def nan_card(name: str) -> None:
    """Where the newest NaN came from, and what can be done now."""
    with opened(name) as run:
        card, live, paused = view.origin_card(run.events()), is_live(run), run.status == "paused"
    if card is None:
        return
    with st.container(border=True, key="nan-card"):
        st.markdown(f":red[:material/error:] **Step {card.step}** · {escape(card.title)}")
        st.caption(
            "The bad update was held back: the weights are those from before this step."
            if card.held
            else f"The bad update was let through. {escape(card.missed)}"
            if card.missed
            else "The bad update was let through; set “On NaN or infinity” to pause or skip."
        )
        if live and not card.over:
            _afterwards(name, paused=paused)
        if card.code:
            st.code(card.code, language="python")
        left, right = st.columns([2, 3])
        left.markdown("  \n".join(f":gray[{label}] {escape(text)}" for label, text in card.rows))
        if card.tensors:
            right.dataframe(list(card.tensors), hide_index=True)
        _download(name, card)


def _afterwards(name: str, *, paused: bool) -> None:
    with st.container(horizontal=True, gap="small"):
        if paused:
            st.button(
                "Skip this batch and go on", icon=":material/skip_next:", key="nan-skip",
                type="primary", on_click=send, args=(name, "resume"),
                help="The state is the one from before this step; its batch is left out.",
            )  # fmt: skip
        st.button(
            "Go back, learning rate ÷ 10", icon=":material/history:", key="nan-back",
            on_click=send, args=(name, "rewind", {"lr_factor": 0.1, "resume": True}),
            help="Puts parameters and optimizer back to an earlier, finite state, lowers the "
            "learning rate and goes on.",
        )  # fmt: skip
        st.button(
            "Stop", icon=":material/stop:", key="nan-stop", on_click=send, args=(name, "stop")
        )


def _download(name: str, card: view.OriginCard) -> None:
    folder = runs_dir() / name / card.report
    if not card.report or not (folder / "reproduce.py").exists():
        return
    st.download_button(
        "Script and state that reproduce it",
        data=lambda: zipped(folder),
        file_name=f"{name}-{folder.name}.zip",
        mime="application/zip",
        icon=":material/download:",
        key="nan-report",
        on_click="ignore",
    )


def lr_finder_panel(name: str, *, live: bool) -> None:
    """Starts the trial, shows its curve, applies its suggestion."""
    with st.container(border=True, key="lr-finder"):
        st.markdown("**Learning rate finder**")
        st.caption(
            "A hundred steps with a rising rate on a copy of the training, which itself stays as "
            "it is. Suggested is where the loss falls steepest."
            + " This run has ended: nothing can be tried on it any more."
            * (not live)
        )
        st.fragment(_lr_finder, run_every=_REFRESH if live else None)(name)


def _lr_finder(name: str) -> None:
    with opened(name) as run:
        found, live, of = run.document("lr_finder"), is_live(run), places(run)
        events = run.events()
    target = _whose(name, of, disabled=not live)
    st.button(
        "Find a learning rate", icon=":material/search:", key="lr-find", disabled=not live,
        on_click=send, args=(name, "lr_finder", {"steps": 100}), kwargs={"target": target},
    )  # fmt: skip
    refusal(events, "lr_finder")
    if found is not None:
        _lr_curve(name, found, live=live)


def _whose(name: str, of: Sequence[Place], *, disabled: bool) -> str:
    """Target of the trial: a choice where there are several optimizers."""
    optimizers = {place.target: place.title for place in of if "/" not in place.target}
    if len(optimizers) < 2:
        return ""
    return st.selectbox(
        "Learning rate of",
        list(optimizers),
        format_func=lambda target: optimizers.get(target, target),
        key=f"lr-of/{name}",
        disabled=disabled,
        help="What is not chosen rests in the trial. Rates that rise together keep their ratios; "
        "the one on the axis is the first one's.",
    )


def _lr_curve(name: str, found: Mapping[str, Any], *, live: bool) -> None:
    suggestion = found.get("suggestion")
    figure = go.Figure()
    figure.add_scatter(
        x=found["lrs"], y=found["losses"], mode="lines", name="loss", line={"color": "gray"},
        opacity=0.5,
    )  # fmt: skip
    figure.add_scatter(x=found["lrs"], y=found["smoothed"], mode="lines", name="smoothed")
    if suggestion:
        figure.add_vline(x=suggestion, line_dash="dash", line_color="gray")
    best = min(found["smoothed"], default=0.0)
    top = max(found["smoothed"][:10], default=1.0)
    figure.update_layout(
        height=280,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        xaxis={"type": "log", "title": "learning rate", "exponentformat": "power", "dtick": 1},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1},
        yaxis={"title": "loss", "range": [best - 0.1 * (top - best), top + 0.6 * (top - best)]},
    )
    st.plotly_chart(presenter.enlarged(figure), key="lr-curve", config={"displayModeBar": False})
    for words in (view.tried(found), str(found.get("note", ""))):
        if words:
            st.caption(escape(words))
    if suggestion:
        of = f" of {escape(found['where'])}" if found.get("where") else ""
        st.button(
            f"Set the learning rate{of} to {short(suggestion, 2)}", key="lr-apply", type="primary",
            icon=":material/check:", disabled=not live, on_click=send,
            args=(name, "set", float(f"{suggestion:.2g}")),
            kwargs={"control": "lr", "target": found.get("target", "")},
        )  # fmt: skip
