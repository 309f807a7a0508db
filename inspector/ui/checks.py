"""Checks of a configuration, each a button: one batch by heart, and whether two runs agree."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import streamlit as st

from inspector.config import RunConfig
from inspector.errors import InspectorError
from inspector.ui.context import escape

_EVERY = "500ms"

Told = Callable[[str, float], None]


class _Stopped(Exception):
    """Somebody pressed Stop."""


class Check:
    """One check beside the page; it starts at once and runs in processes of its own.

    Attributes:
        said: how far it is; ``share`` the same from 0 to 1.
        result: what it found; None while it runs, and where it was refused or stopped.
        refusal: why it could not be made, in a sentence.
    """

    def __init__(self, config: RunConfig, title: str, check: Callable[[Told], Any]) -> None:
        self.config = config
        self.title = self.said = title
        self.share = 0.0
        self.result: Any = None
        self.refusal = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(check,), name="inspector-check", daemon=True
        )
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ends it at its next step."""
        self._stop.set()

    def _run(self, check: Callable[[Told], Any]) -> None:
        try:
            self.result = check(self._told)
        except _Stopped:
            self.refusal = "Stopped."
        except InspectorError as error:
            self.refusal = str(error)

    def _told(self, text: str, share: float) -> None:
        if self._stop.is_set():
            raise _Stopped
        self.said, self.share = f"{self.title} {text}", min(share, 1.0)


def checks_panel(config: RunConfig | dict[str, Any], key: str) -> None:
    """The buttons, and the answer of the one that was pressed; the page stays usable meanwhile.

    Nothing is drawn for the settings of a newer version.
    """
    try:
        config = config if isinstance(config, RunConfig) else RunConfig.from_dict(config)
    except InspectorError:
        return
    job: Check | None = st.session_state.get(_place(key))
    running = job is not None and job.running
    st.fragment(_panel, run_every=_EVERY if running else None)(config, key, running)


def _panel(config: RunConfig, key: str, was_running: bool) -> None:
    job: Check | None = st.session_state.get(_place(key))
    running = job is not None and job.running
    if running != was_running:
        st.rerun()  # begins to follow the check, or stops
    with st.container(horizontal=True, gap="small"):
        st.button(
            "Overfit one batch", icon=":material/psychology:", key=f"{key}/overfit",
            disabled=running, on_click=_overfit, args=(config, key),
            help="Trains a copy on one batch, 1,000 steps or a minute at most. What can be "
            "learned can be learned by heart; a model that does not has a fault.",
        )  # fmt: skip
        st.button(
            "Do two runs agree?", icon=":material/compare_arrows:", key=f"{key}/twice",
            disabled=running, on_click=_twice, args=(config, key),
            help="Trains twice for ten steps and compares batches, losses, gradients and weights "
            "bit for bit.",
        )  # fmt: skip
        if running and job is not None:
            st.button("Stop", icon=":material/stop:", key=f"{key}/stop", on_click=job.stop)
    if running and job is not None:
        st.progress(job.share, job.said)
    elif job is not None and job.config == config:
        _answer(job)


def _place(key: str) -> str:
    return f"{key}/check"


def _overfit(config: RunConfig, key: str) -> None:
    from inspector.training.checks import check_overfit  # imports torch

    st.session_state[_place(key)] = Check(
        config, "Training on one batch …", lambda told: check_overfit(config, told=told)
    )


def _twice(config: RunConfig, key: str) -> None:
    from inspector.training.checks import check_reproducibility  # imports torch

    st.session_state[_place(key)] = Check(
        config, "Training twice …", lambda told: check_reproducibility(config, told=told)
    )


def _answer(job: Check) -> None:
    found = job.result
    if found is None:
        st.error(escape(job.refusal or "The check failed."), icon=":material/block:")
        return
    passed = found.learned if hasattr(found, "learned") else found.same
    show, icon = (st.success, ":material/check:") if passed else (st.warning, ":material/warning:")
    show(f"**{escape(found.text)}** {escape(found.meaning)}", icon=icon)
    losses = getattr(found, "losses", ())
    if len(losses) > 1:
        st.line_chart(losses, height=160, x_label="step", y_label="loss of the batch")
