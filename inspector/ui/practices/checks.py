"""Ways to check a training before it is trusted."""

from __future__ import annotations

from typing import Any

import streamlit as st

from inspector.config import RunConfig
from inspector.ui.fields import number_field


def checks_fields(config: RunConfig, key: str) -> dict[str, Any] | None:
    """``overfit_batches``, ``deterministic`` and ``compile``."""
    first, second, third = st.columns(3, gap="medium")
    with first:
        overfit = number_field(
            "Overfit on batches",
            config.overfit_batches,
            least=0,
            key=f"{key}/overfit",
            help="Trains on the first so many batches only, again and again; 0 trains on all. A "
            "sound model learns one batch by heart: its loss goes to nearly 0. If it does not, "
            "look for a fault before training on.",
        )
    with second:
        deterministic = st.toggle(
            "Deterministic algorithms",
            config.deterministic,
            key=f"{key}/deterministic",
            help="torch.use_deterministic_algorithms: two runs with the same seed agree to the "
            "last bit, at some cost on a GPU. An operation that has no such algorithm is refused.",
        )
    with third:
        compiled = st.toggle(
            "torch.compile",
            bool(config.compile),
            key=f"{key}/compile",
            help="Compiles the model at its first step: faster steps, a slow start. Inside a "
            "compiled model hooks see less: the page Hooks says which modules.",
        )
    return {
        "overfit_batches": overfit,
        "deterministic": deterministic,
        "compile": (config.compile or True) if compiled else False,
    }
