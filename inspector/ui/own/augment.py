"""Augmentation: transforms chosen, ordered and set, with pictures of before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from inspector import catalog
from inspector.config import RunConfig
from inspector.errors import InspectorError
from inspector.ui.context import escape
from inspector.ui.own.check import checked
from inspector.ui.own.pictures import enlarged, in_a_row
from inspector.ui.own.python import field

if TYPE_CHECKING:
    from inspector.training.own.preview import Few

_COLUMNS = 4
_DRAWS = 6
_TILE = 84  # pixels on the screen
_RARELY = ("interpolation", "fill", "center", "inplace", "num_magnitude_bins", "antialias")

Entries = list[dict[str, Any]]


def augment_fields(config: RunConfig, version: int) -> dict[str, Any]:
    """What the form changes of a configuration; nothing while it is folded.

    Raises:
        InspectorError: a transform or an argument of the configuration is unknown.
    """
    source = catalog.DATA.get(config.data)
    seen = checked(config)
    layout = catalog.layout_of(config.data) or (seen.layout if seen else "image")
    if layout != "image" and not config.augment:
        return {}
    key = f"augment/{version}"
    names = ", ".join(str(entry["name"]) for entry in _entries(config))
    title = "Augmentation: training images changed at random"
    # The key does not follow the title, or choosing the first transform would fold it.
    folded = st.expander(title, icon=":material/auto_awesome:", key=key, on_change="rerun")
    if not folded.open:
        if names:
            st.caption(f"Augmentation: {escape(names)}")
        return {}
    with folded:
        if layout != "image":
            st.warning("These samples are no images: take the transforms out.",
                       icon=":material/info:")  # fmt: skip
        entries = _form(_entries(config), key, source.shape[1] if source else 0)
        if entries:
            _pictures(config, entries, key)
    return {"augment": entries}


def _entries(config: RunConfig) -> Entries:
    return [{"name": entry} if isinstance(entry, str) else dict(entry) for entry in config.augment]


def _form(entries: Entries, key: str, side: int) -> Entries:
    from inspector.training.own.augment import CURATED, offer

    # Fields keep what was typed when their transform moves, so each has a number of its own.
    ids: list[int] = st.session_state.setdefault(f"{key}/ids", [])
    while len(ids) < len(entries):
        ids.append(max(ids, default=-1) + 1)
    del ids[len(entries) :]
    made = list(entries)
    act = None
    for place, entry in enumerate(entries):
        with st.container(border=True):
            act = _heading(place, entry, len(entries), f"{key}/{ids[place]}") or act
            made[place] = _arguments(entry, f"{key}/{ids[place]}")
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    name = left.selectbox(
        "Transform",
        CURATED,
        accept_new_options=True,
        key=f"{key}/name",
        help="Any transform of torchvision.transforms.v2 can be typed.",
    )
    if right.button("Add", icon=":material/add:", width="stretch", key=f"{key}/add") and name:
        made.append({"name": name, **offer(name.strip(), side).suggested})
    elif act is not None:
        place, to = act
        if to is None:
            del made[place], ids[place]
        else:
            for one in (made, ids):
                one[place], one[to] = one[to], one[place]
    return made


def _heading(place: int, entry: dict[str, Any], count: int, key: str) -> Any:
    """What was pressed: (place, new place), (place, None) to remove; None for nothing."""
    from inspector.training.own.augment import offer

    act: tuple[int, int | None] | None = None
    left, right = st.columns([5, 1], vertical_alignment="top", gap="small")
    about = offer(entry["name"]).about.partition(". ")[0].rstrip(".")
    left.markdown(f"**{place + 1}. {escape(entry['name'])}** &ensp;:small[{escape(about)}.]")
    with right, st.container(horizontal=True, horizontal_alignment="right", gap="xxsmall"):
        for icon, to, words, enabled in (
            ("arrow_upward", place - 1, "Earlier", place > 0),
            ("arrow_downward", place + 1, "Later", place < count - 1),
            ("close", None, "Remove", True),
        ):
            if st.button(
                "", icon=f":material/{icon}:", key=f"{key}/{icon}", help=words, type="tertiary",
                disabled=not enabled,
            ):  # fmt: skip
                act = place, to
    return act


def _arguments(entry: dict[str, Any], key: str) -> dict[str, Any]:
    from inspector.training.own.augment import offer

    shown = [a for a in offer(entry["name"]).arguments if a.name not in _RARELY]
    values = {k: v for k, v in entry.items() if k in ("name", *_RARELY)}
    for first in range(0, len(shown), _COLUMNS):
        row = shown[first : first + _COLUMNS]
        for column, argument in zip(st.columns(_COLUMNS, gap="medium"), row, strict=False):
            with column:
                value = field(argument, entry, f"{key}/{argument.name}")
            usual = argument.default
            usual = list(usual) if isinstance(usual, tuple) else usual
            if value is not None and (argument.required or value != usual):
                values[argument.name] = value
    return values


def _pictures(config: RunConfig, entries: Entries, key: str) -> None:
    """The same few samples, before and in several draws."""
    from inspector.training.own.preview import before_and_after

    about = (config.data, repr(config.data_args), config.code, config.seed, config.validation,
             config.task, config.model if config.task in ("auto", "own") else "")  # fmt: skip
    kept: dict[Any, Few] = st.session_state.setdefault("own/few", {})
    source = catalog.DATA.get(config.data)
    left, right = st.columns([3, 1], vertical_alignment="center")
    if source is None or source.download_bytes:
        pressed = right.button("Show before and after", key=f"{key}/show", width="stretch")
    else:
        pressed = about not in kept
    first = st.session_state.setdefault(f"{key}/first", 0)
    try:
        if pressed:
            with st.spinner("Reading a few samples …"):
                kept.clear()
                kept[about] = _few(config)
        if about not in kept:
            left.caption("Pictures of your own samples are read when you ask for them.")
            return
        few = kept[about]
        rows = before_and_after(few, entries, _DRAWS, first)
    except InspectorError as error:
        st.error(escape(str(error)), icon=":material/block:")
        return
    left.caption(
        "Left: a sample of the training part. Right: what the model may get for it. Every pass "
        "draws anew, by the seed; validation and test stay as they are."
    )
    if (source is not None and not source.download_bytes) and right.button(
        "Draw again", icon=":material/casino:", key=f"{key}/again", width="stretch"
    ):
        st.session_state[f"{key}/first"] = first + _DRAWS
        st.rerun()
    wide = min(110, 24 + 8 * max(map(len, few.captions), default=0))
    for caption, pictures in zip(few.captions, rows, strict=True):
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            st.markdown(escape(caption), width=wide)
            st.image(enlarged(pictures[0], _TILE * len(pictures[0]) // pictures[0].shape[1]))
            st.image(in_a_row(pictures[1:], _TILE * len(pictures[0]) // pictures[0].shape[1]))


def _few(config: RunConfig) -> Few:
    from inspector.training.failures import failure
    from inspector.training.own.preview import few_samples

    try:
        return few_samples(config)
    except InspectorError:
        raise
    except Exception as error:  # the user's own code may raise anything
        told = failure(error)
        raise InspectorError(f"{told.error}: {told.message}") from error
