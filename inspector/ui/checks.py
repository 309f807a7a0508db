"""Checks of a configuration, each a button: one batch by heart, and whether two runs agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from inspector.config import RunConfig
from inspector.errors import InspectorError
from inspector.ui.context import escape


def checks_panel(config: RunConfig | dict[str, Any], key: str) -> None:
    """The buttons, and the answer of the one that was pressed; runs in processes of its own.

    Nothing is drawn for the settings of a newer version.
    """
    try:
        config = config if isinstance(config, RunConfig) else RunConfig.from_dict(config)
    except InspectorError:
        return
    st.fragment(_panel)(config, key)  # the rest of the page stays usable meanwhile


def _panel(config: RunConfig, key: str) -> None:
    with st.container(horizontal=True, gap="small"):
        overfit = st.button(
            "Overfit one batch", icon=":material/psychology:", key=f"{key}/overfit",
            help="Trains a copy on one batch, 1,000 steps or a minute at most. What can be "
            "learned can be learned by heart; a model that does not has a fault.",
        )  # fmt: skip
        twice = st.button(
            "Do two runs agree?", icon=":material/compare_arrows:", key=f"{key}/twice",
            help="Trains twice for ten steps and compares batches, losses, gradients and weights "
            "bit for bit.",
        )  # fmt: skip
    if overfit:
        _overfit(config)
    elif twice:
        _twice(config)


def _overfit(config: RunConfig) -> None:
    from inspector.training.checks import check_overfit  # imports torch

    verdict = _run("Training on one batch …", lambda told: check_overfit(config, told=told))
    if verdict is None:
        return
    _answer(verdict.learned, verdict.text, verdict.meaning)
    if len(verdict.losses) > 1:
        st.line_chart(verdict.losses, height=160, x_label="step", y_label="loss of the batch")


def _twice(config: RunConfig) -> None:
    from inspector.training.checks import check_reproducibility  # imports torch

    found = _run("Training twice …", lambda told: check_reproducibility(config, told=told))
    if found is not None:
        _answer(found.same, found.text, found.meaning)


def _run(title: str, check: Callable[[Callable[[str, float], None]], Any]) -> Any:
    """What the check has found; None where it was refused, with the reason on the page."""
    bar = st.progress(0.0, title)

    def told(text: str, share: float) -> None:
        bar.progress(min(share, 1.0), f"{title} {text}")

    try:
        return check(told)
    except InspectorError as error:
        st.error(escape(str(error)), icon=":material/block:")
        return None
    finally:
        bar.empty()


def _answer(passed: bool, text: str, meaning: str) -> None:
    show, icon = (st.success, ":material/check:") if passed else (st.warning, ":material/warning:")
    show(f"**{escape(text)}** {escape(meaning)}", icon=icon)
