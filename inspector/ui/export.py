"""The export panel: every format of a run, prepared in the background, then downloaded."""

from __future__ import annotations

from functools import partial
from itertools import groupby
from pathlib import Path

import streamlit as st

from inspector.errors import StoreError
from inspector.exports.background import Job, Outcome
from inspector.exports.formats import FORMATS, Form, Format
from inspector.exports.model.checkpoint import saved
from inspector.store.layout import run_path
from inspector.store.reader import Run
from inspector.ui.context import LIVE, escape, runs_dir

_REFRESH = 0.7
_MIME = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".py": "text/x-python",
    ".zip": "application/zip",
}


def export_panel(run: str) -> None:
    """Draws the panel for a run of the app's folder; it may still be going."""
    waiting = any(job.outcome() is None for job in _jobs(run).values())
    st.fragment(_panel, run_every=_REFRESH if waiting else None)(run, waiting)


def _panel(run: str, waiting: bool) -> None:
    try:
        path = run_path(runs_dir(), run)
        with Run(path) as opened:
            watched, status = not opened.config, opened.status
    except StoreError as error:
        st.error(escape(str(error)))
        return
    groups = [(name, list(some)) for name, some in groupby(FORMATS.values(), lambda f: f.group)]
    if status in LIVE:
        st.caption("The run is going: an export holds what has been recorded so far.")
    for tab, (group, formats) in zip(st.tabs([name for name, _ in groups]), groups, strict=True):
        with tab:
            checkpoint, form = "last", "long"
            if group == "Model":
                reason, checkpoint = _checkpoint(path, watched=watched, live=status in LIVE)
                if reason:
                    st.info(reason)
                    continue
            if watched and all(wanted.rebuilds for wanted in formats):
                st.info("A run that your own script recorded has no configuration to export.")
                continue
            if group == "Telemetry":
                form = _form(run)
            for wanted in formats:
                _row(path, wanted, checkpoint, "wide" if form == "wide" else "long")
    # The interval belongs to the fragment; without it the panel no longer asks.
    if waiting != any(job.outcome() is None for job in _jobs(run).values()):
        st.rerun()


def _checkpoint(path: Path, *, watched: bool, live: bool) -> tuple[str, str]:
    """Why no model can be exported, or which checkpoint is wanted."""
    if watched:
        return (
            "This run was recorded by your own script, which has the model. Its telemetry and "
            "report can be exported.",
            "",
        )
    names = list(saved(path))
    if not names:
        when = "yet; it saves one at its end" if live else "to export"
        return f"This run has no checkpoint {when}.", ""
    names.sort(key=lambda name: (name != "last", name != "best", name))
    if len(names) == 1:
        return "", names[0]
    chosen = st.selectbox("Checkpoint", names, key=f"export/{path.name}/checkpoint", width=260)
    return "", chosen or names[0]


def _form(run: str) -> str:
    return (
        st.segmented_control(
            "Table",
            ["long", "wide"],
            default="long",
            key=f"export/{run}/form",
            help="Long: one line a measurement. Wide: one line a step, one column a series.",
        )
        or "long"
    )


def _row(path: Path, wanted: Format, checkpoint: str, form: Form) -> None:
    key = f"{wanted.key}/{checkpoint if wanted.group == 'Model' else form}"
    jobs = _jobs(path.name)
    job = jobs.get(key)
    outcome = job.outcome() if job else None
    missing = wanted.missing()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{wanted.title}** · {wanted.about}", width="stretch")
        if job is not None and outcome is None:
            st.button(
                f"{job.seconds:.0f} s",
                icon="spinner",
                key=f"export/{path.name}/{key}/cancel",
                on_click=job.cancel,
                help="Being prepared in the background; click to cancel.",
            )
        elif outcome is not None and outcome.path is not None:
            st.download_button(
                "Download",
                data=partial(_content, outcome.path),
                file_name=outcome.path.name,
                mime=_MIME.get(outcome.path.suffix, "application/octet-stream"),
                key=f"export/{path.name}/{key}/download",
                type="primary",
                icon=":material/download:",
                on_click="ignore",
            )
        if job is None or outcome is not None:
            begin = partial(_begin, path, wanted.key, key, checkpoint, form)
            st.button(
                "Prepare" if outcome is None else "Again",
                key=f"export/{path.name}/{key}/prepare",
                on_click=begin,
                disabled=bool(missing),
                help=missing or None,
            )
    _said(outcome)


def _said(outcome: Outcome | None) -> None:
    if outcome is None:
        return
    if outcome.refusal:
        st.warning(escape(outcome.refusal), icon=":material/block:")
    if outcome.notes:
        st.caption("  \n".join(map(escape, outcome.notes)))


def _begin(path: Path, to: str, key: str, checkpoint: str, form: Form) -> None:
    jobs = _jobs(path.name)
    if key in jobs:
        jobs[f"{key}/before"] = jobs[key]  # a download may still be reading its file
    jobs[key] = Job(path, to, checkpoint=checkpoint, form=form)


def _content(path: Path) -> bytes:
    return path.read_bytes()


def _jobs(run: str) -> dict[str, Job]:
    """What this tab has asked for, by format and settings."""
    jobs: dict[str, dict[str, Job]] = st.session_state.setdefault("exports", {})
    return jobs.setdefault(run, {})
