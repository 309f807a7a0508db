"""What to show when the user's code raised: the error, their own lines, and Retry."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from inspector.events import RunFailed, StoredEvent
from inspector.ui import runs
from inspector.ui.context import escape
from inspector.views.events import failure


def failure_panel(
    events: Iterable[StoredEvent], *, config: dict[str, object] | None = None
) -> None:
    """Nothing while all is well; ``config`` offers to run the same configuration again."""
    found = failure(events)
    if found is None:
        return
    step, failed = found
    with st.container(border=True):
        st.error(f"**Failed at step {step}** {_where(failed)}", icon=":material/error:")
        st.code(f"{failed.error}: {failed.message}", language=None, wrap_lines=True)
        for frame in reversed(failed.frames):
            st.caption(f"{escape(frame.file)}:{frame.line} in {escape(frame.function)}")
            if frame.code:
                st.code(frame.code, language="python")
        if failed.traceback:
            with st.expander("Whole traceback"):
                st.code(failed.traceback, language="python")
        if config and st.button("Retry", icon=":material/replay:", type="primary"):
            runs.start_and_watch(config)


def _where(failed: RunFailed) -> str:
    module = "" if failed.module is None else f", module {escape(failed.module or '(model)')}"
    return f"(during {escape(failed.phase)}{module})" if failed.phase else module
