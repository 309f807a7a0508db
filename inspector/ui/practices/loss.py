"""The arguments of the loss."""

from __future__ import annotations

from typing import Any

import streamlit as st

from inspector import catalog
from inspector.catalog import Kind
from inspector.config import RunConfig
from inspector.errors import ConfigError
from inspector.ui.context import escape
from inspector.ui.practices.arguments import class_fields

_CLASSES = {
    "cross_entropy": "CrossEntropyLoss",
    "mse": "MSELoss",
    "bce_with_logits": "BCEWithLogitsLoss",
    "nll": "NLLLoss",
    "smooth_l1": "SmoothL1Loss",
    "kl_div": "KLDivLoss",
    "ctc": "CTCLoss",
}
_ABOUT = {
    "cross_entropy": "One class per sample. Takes scores (logits): it applies softmax itself.",
    "mse": "Numbers to predict: the mean of squared errors, so one large error weighs much.",
    "bce_with_logits": "Several labels per sample, each yes or no. It applies the sigmoid itself.",
    "nll": "As cross entropy, for models whose output is log_softmax already.",
    "smooth_l1": "Numbers to predict: squared near zero, then linear, so outliers weigh less.",
    "kl_div": "Targets are probabilities, such as a teacher's; the output must be log_softmax.",
    "ctc": "Sequences without alignment, such as handwriting; the output must be log_softmax.",
}
_HIDDEN = frozenset({"size_average", "reduce", "reduction"})


def loss_fields(config: RunConfig, key: str) -> dict[str, Any] | None:
    """``loss_args``; None while a value cannot be used."""
    from torch import nn

    from inspector.training.losses import SUITABLE, build_loss

    kind = _kind(config)
    choices = SUITABLE.get(kind, {}) if kind else {}
    name = config.loss if config.loss != "auto" else next(iter(choices), "")
    if not name:
        st.caption("Choose the loss above to see its arguments; now it is suited to the task.")
        return {}
    chosen = "Suited to the task: " if config.loss == "auto" else ""
    st.caption(f"{chosen}`nn.{_CLASSES[name]}`. {_ABOUT[name]}")
    cls = choices.get(name, getattr(nn, _CLASSES[name]))
    made = class_fields(cls, config.loss_args, _HIDDEN, f"{key}/{name}")
    if made is None:
        return None
    if name in choices and kind:
        try:
            source = catalog.DATA[config.data]
            build_loss(name, kind, made, outputs=0 if config.data_args else source.outputs)
        except ConfigError as error:
            st.error(escape(str(error)), icon=":material/block:")
            return None
    return {"loss_args": made}


def _kind(config: RunConfig) -> Kind | None:
    """The task, where it is known before the data is read."""
    source = catalog.DATA.get(config.data)
    if source is None or config.task not in ("auto", source.kind) or catalog.is_own(config.model):
        return None
    entry = catalog.MODELS.get(config.model)
    return "reconstruction" if entry is not None and entry.reconstructs else source.kind
