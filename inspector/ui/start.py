"""The first screen: what is loaded, Start, a gallery of presets, and everything to choose."""

from __future__ import annotations

import streamlit as st

from inspector import catalog
from inspector.config import OPTIMIZER_TITLES, RunConfig
from inspector.numerals import short
from inspector.presets import DEFAULT, PRESETS, Preset
from inspector.ui import context, presenter, runs
from inspector.ui.checks import checks_panel
from inspector.ui.choose import choose
from inspector.ui.own.edited import source_line
from inspector.views.practices import changes

_COLUMNS = 4


def start_page() -> None:
    """Draws the page."""
    config = _draft()
    busy = _running()
    with st.container(border=True, key="loaded"):
        left, right = st.columns([3, 1], vertical_alignment="center", gap="large")
        with left:
            _loaded(config)
        with right:
            pressed = st.button(
                "Start",
                type="primary",
                icon=":material/play_arrow:",
                width="stretch",
                key="start",
                help="Stops the run that is going, then starts this one." if busy else None,
            )
    said = st.container()
    with st.expander("Choose model, data and optimizer", icon=":material/tune:"):
        changed = choose(config)
        if changed is not None and changed != config:
            st.session_state["draft"] = changed
            if not pressed:
                st.rerun()
        checks_panel(config, "start")
    with said:
        if pressed:
            _start(changed)
        runs.watch_started()  # another click than the one on Start may have come in between
    st.subheader("Presets")
    for group in dict.fromkeys(preset.group for preset in PRESETS):
        presets = [preset for preset in PRESETS if preset.group == group]
        if not group:
            _gallery(presets, config)
            continue
        with st.expander(
            f"{group} ({len(presets)})", icon=":material/school:", key=f"group-{group}"
        ):
            _gallery(presets, config)


def _start(config: RunConfig | None) -> None:
    """Starts what the form holds by now, which a click may have followed at once."""
    if config is None:
        st.error(
            "Nothing was started: the form below holds a value that cannot be used, or lacks one; "
            "it says which beside the field.",
            icon=":material/block:",
        )
        return
    runs.start_and_watch(config)


def _gallery(presets: list[Preset], config: RunConfig) -> None:
    for first in range(0, len(presets), _COLUMNS):
        columns = st.columns(_COLUMNS)
        for column, preset in zip(columns, presets[first : first + _COLUMNS], strict=False):
            with column:
                _card(preset, loaded=preset.config == config)


def _draft() -> RunConfig:
    draft: RunConfig = st.session_state.setdefault("draft", DEFAULT.config)
    return draft


def _running() -> bool:
    """A line to each run that is going, so that a second tab finds it; whether one trains here."""
    busy = False
    for summary in context.summaries():
        if summary.status in context.LIVE:
            busy |= bool(summary.config.get("in_process"))
            with st.container(horizontal=True, vertical_alignment="center"):
                colour = "orange" if summary.status == "paused" else "green"
                st.markdown(
                    f":{colour}-badge[{summary.status}] **{context.escape(summary.name)}**",
                    width="content",
                )
                if st.button("Watch it", key=f"watch/{summary.name}", icon=":material/visibility:"):
                    runs.watch(summary.name)
            source_line(context.runs_dir() / summary.name, live=True)
    return busy


def _loaded(config: RunConfig) -> None:
    model, data = catalog.MODELS.get(config.model), catalog.DATA.get(config.data)
    data_title = data.title.lower() if data else catalog.title(config.data)
    title = f"{catalog.title(config.model)} on {data_title}"
    st.markdown(f"### {context.escape(title)}")
    about = " ".join(entry.about for entry in (model, data) if entry)
    own = [name for name in (config.model, config.data) if catalog.is_own(name)]
    st.markdown(context.escape(" · ".join([about, *own] if about else own)))
    length = f"{config.steps:,} steps" if config.steps else f"{config.epochs} epochs"
    parts = [
        f"{OPTIMIZER_TITLES[config.optimizer]}, learning rate {short(config.lr)}",
        f"batches of {config.batch_size}",
        length,
        f"seed {config.seed}",
        "device chosen automatically" if config.device == "auto" else config.device,
    ]
    st.caption(context.escape(" · ".join(parts)))
    different = changes(config)
    if different:
        st.caption(":primary[Set besides:] " + context.escape(" · ".join(different)))


def _card(preset: Preset, *, loaded: bool) -> None:
    with st.container(border=True, key=f"card-{preset.key}"):
        with st.container(height=140 if presenter.on() else 108, border=False, gap="xsmall"):
            st.markdown(f"**{preset.title}**")
            st.caption(preset.about)
        st.button(
            "Loaded" if loaded else "Load",
            key=f"load/{preset.key}",
            disabled=loaded,
            width="stretch",
            on_click=_load,
            args=(preset,),
            help=preset.notice,
        )


def _load(preset: Preset) -> None:
    st.session_state["draft"] = preset.config
    # The form below starts again from what was loaded.
    st.session_state["draft_version"] = st.session_state.get("draft_version", 0) + 1
