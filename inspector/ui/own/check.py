"""The check before the start: samples, class counts, a batch as the model sees it, the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st

from inspector.config import RunConfig
from inspector.errors import InspectorError
from inspector.ui.context import escape
from inspector.ui.own.pictures import enlarged

if TYPE_CHECKING:
    from inspector.training.own.preview import Preview
    from inspector.training.own.weights import Comparison

_IMAGE_PIXELS = 84
_STRIP_PIXELS = 40
_BARS = 40
_OF_THE_DATA = ("data", "data_args", "code", "task", "validation", "test", "stratify")


@dataclass(slots=True)
class _Checked:
    """What a check found, and what it was about."""

    config: RunConfig
    preview: Preview | None = None
    refusal: str = ""
    lines: str = ""


def check_panel(config: RunConfig) -> None:
    """A button, and below it what the last check found."""
    left, right = st.columns([1, 3], vertical_alignment="center")
    pressed = left.button(
        "Check and preview", icon=":material/fact_check:", width="stretch", key="own/look"
    )
    right.caption(
        "Reads the data, builds the model and tries one batch; nothing is trained. "
        "A start does the same check first."
    )
    if pressed:
        with st.spinner("Reading the data and trying one batch …"):
            st.session_state["own/checked"] = _check(config)
        st.rerun()  # what is above may say more now that the data is known
    last: _Checked | None = st.session_state.get("own/checked")
    if last is None:
        return
    if last.config != config:
        st.caption("The settings have changed since the last check.")
        return
    if last.refusal:
        st.error(escape(last.refusal), icon=":material/block:")
        if last.lines:
            st.code(last.lines, language="python")
    if last.preview is not None:
        _draw(last.preview)


def checked(config: RunConfig) -> Preview | None:
    """What the last check found, if it was of the same samples, split in the same way."""
    last: _Checked | None = st.session_state.get("own/checked")
    same = last is not None and all(
        getattr(last.config, name) == getattr(config, name) for name in _OF_THE_DATA
    )
    return last.preview if last is not None and same else None


def checked_batches(config: RunConfig) -> int:
    """Batches of an epoch; 0 where the last check was of other data, or does not tell."""
    found = checked(config)
    if found is None:
        return 0
    if found.parts[0] >= 0:
        return math.ceil(found.parts[0] / config.batch_size)
    return found.batches


def _check(config: RunConfig) -> _Checked:
    from inspector.training import runner
    from inspector.training.failures import failure
    from inspector.training.own.preview import preview_data, preview_model

    made = _Checked(config)
    try:
        made.preview, source = preview_data(config)
        if runner.current() is None:
            preview_model(config, source, made.preview)
        else:
            # Building a model draws random numbers that the run in this process needs.
            note = "The model is not tried while a run trains in this process."
            made.preview.notes = (*made.preview.notes, note)
    except InspectorError as error:
        made.refusal = str(error)
    except Exception as error:  # the user's own code may raise anything
        told = failure(error)
        made.refusal = f"{told.error}: {told.message}"
        made.lines = "\n".join(
            f"# {frame.file}:{frame.line}\n{frame.code}" for frame in told.frames
        )
    return made


def _draw(made: Preview) -> None:
    sizes = [
        f"{count:,} {name}"
        for name, count in zip(("to train on", "for validation", "for the test"), made.parts,
                               strict=True)
        if count > 0
    ]  # fmt: skip
    facts = [made.kind.replace("_", "-"), *sizes, *([made.model] if made.model else [])]
    with st.container(border=True, key="own-check"):
        st.markdown(escape(" · ".join(facts)))
        for note in made.notes:
            st.caption(escape(note))
        if made.weights is not None:
            _weights(made.weights)
        samples, counts = st.columns([3, 2], gap="large")
        with samples:
            _samples(made)
        with counts:
            _counts(made.counts)
        st.markdown(f"**A batch{' as the model sees it' * bool(made.model)}**")
        st.dataframe(made.batch, hide_index=True, width="stretch")


def _samples(made: Preview) -> None:
    if made.images:
        st.markdown("**Samples**")
        with st.container(horizontal=True, gap="small"):
            for image, caption in made.images:
                wide = image.shape[1] > image.shape[0]
                large = enlarged(image, _STRIP_PIXELS if wide else _IMAGE_PIXELS)
                width = large.shape[1] if wide else _IMAGE_PIXELS
                st.image(large, caption=escape(caption), width=width)
    elif made.table is not None:
        st.markdown("**First samples**")
        st.dataframe(made.table, hide_index=True, width="stretch")
    elif made.texts:
        st.markdown("**Samples**")
        st.code("\n───\n".join(made.texts), language=None, wrap_lines=True)


def _counts(counts: dict[str, int]) -> None:
    if not counts:
        return
    st.markdown("**Samples of each class**")
    rows = [{"class": name, "samples": count} for name, count in counts.items()]
    st.dataframe(
        rows[:_BARS],
        hide_index=True,
        width="stretch",
        column_config={
            "samples": st.column_config.ProgressColumn(
                format="%d", min_value=0, max_value=max(1, *counts.values())
            )
        },
    )


def _weights(compared: Comparison) -> None:
    if compared.complete:
        st.caption(f"All {len(compared.fitting)} weights fit.")
        return
    st.warning(
        f"{len(compared.fitting)} weights fit, {len(compared.missing)} are missing, "
        f"{len(compared.unexpected)} are unexpected, {len(compared.different)} have another shape. "
        "Switch on **Take what fits of them** to load those that fit.",
        icon=":material/difference:",
    )
    rows = [
        *({"weight": name, "what": "missing in the file"} for name in compared.missing),
        *({"weight": name, "what": "unexpected"} for name in compared.unexpected),
        *(
            {"weight": name, "what": f"{mine} in the model, {theirs} in the file"}
            for name, mine, theirs in compared.different
        ),
    ]
    st.dataframe(rows, hide_index=True, width="stretch")
