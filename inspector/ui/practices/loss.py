"""The arguments of the loss."""

from __future__ import annotations

from typing import Any

import streamlit as st

from inspector import catalog
from inspector.config import RunConfig
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
    name = config.loss if config.loss != "auto" else _suited(config)
    if not name:
        st.caption("Choose the loss above to see its arguments; now it is suited to the task.")
        return {}
    from torch import nn

    chosen = "Suited to the task: " if config.loss == "auto" else ""
    st.caption(f"{chosen}`nn.{_CLASSES[name]}`. {_ABOUT[name]}")
    given = config.loss_args
    made = class_fields(getattr(nn, _CLASSES[name]), given, _HIDDEN, f"{key}/{name}")
    return None if made is None else {"loss_args": made}


def _suited(config: RunConfig) -> str:
    """The loss that ``auto`` stands for, where that is known before the data is read."""
    source = catalog.DATA.get(config.data)
    if source is None or config.task not in ("auto", source.kind) or catalog.is_own(config.model):
        return ""
    from inspector.training.losses import SUITABLE

    entry = catalog.MODELS.get(config.model)
    kind = "reconstruction" if entry is not None and entry.reconstructs else source.kind
    return next(iter(SUITABLE.get(kind, {})), "")
