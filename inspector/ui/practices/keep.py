"""Checkpoints that are kept, and one to go on from."""

from __future__ import annotations

from typing import Any

import streamlit as st

from inspector.config import RunConfig
from inspector.ui import context
from inspector.ui.fields import number_field

_MOST = 30


def keep_fields(config: RunConfig, key: str) -> dict[str, Any] | None:
    """``checkpoint_every`` and ``resume``."""
    left, right = st.columns(2, gap="medium")
    with left:
        every = number_field(
            "Checkpoint every",
            config.checkpoint_every,
            least=0,
            step=100,
            key=f"{key}/every",
            help="Steps between checkpoints; 0 keeps only the last and the best (by validation "
            "loss). A checkpoint holds weights, optimizer, schedule, random numbers and the order "
            "of the data.",
        )
    with right:
        options = _references(config)
        if config.resume and config.resume not in options:
            options.insert(0, config.resume)
        resume = st.selectbox(
            "Go on from",
            options,
            index=options.index(config.resume) if config.resume else None,
            accept_new_options=True,
            placeholder="the beginning",
            key=f"{key}/resume",
            help="RUN@last, RUN@best, RUN@STEP, or the path of a checkpoint. The run goes on "
            "exactly as that one would have, up to the length set above.",
        )
    return {"checkpoint_every": every, "resume": resume or ""}


def _references(config: RunConfig) -> list[str]:
    """Newest checkpoints of runs of the same model on the same data."""
    found = []
    for summary in context.summaries():
        same = all(summary.config.get(part) == getattr(config, part) for part in ("model", "data"))
        folder = context.runs_dir() / summary.name / "blobs" / "checkpoints"
        if same and folder.is_dir():
            found += [f"{summary.name}@last", f"{summary.name}@best"]
        if len(found) >= _MOST:
            break
    return found
