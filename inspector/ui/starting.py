"""Starting a run beside the page: what is clicked meanwhile neither interrupts nor repeats it.

Streamlit ends a script where it is when something is clicked, and begins it anew; a start inside
the script would be left half done, and a double click would be two starts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import streamlit as st

_LOOK_SECONDS = 0.1
_LATE_SECONDS = 1.5  # a second click may still be on its way when the first has had its effect
_STALE_SECONDS = 10.0
_PLACE = "starting"

Told = Callable[[str, float], None]


class Starting:
    """One start; it begins at once.

    Attributes:
        of: the button, and ``what`` it was to start.
        said, share: how far it is.
        name: of the run; empty while it is not there.
        trouble: why there is none.
    """

    def __init__(self, of: str, what: object, start: Callable[[Told], str]) -> None:
        self.of, self.what = of, what
        self.said, self.share = "", 0.0
        self.name = ""
        self.trouble: Exception | None = None
        self.over_at = 0.0
        self.taken_at = 0.0
        self._done = threading.Event()
        threading.Thread(
            target=self._run, args=(start,), name="inspector-starting", daemon=True
        ).start()

    @property
    def over(self) -> bool:
        return self._done.is_set()

    def wait(self, seconds: float) -> bool:
        """Whether it is over, at the latest after that time."""
        return self._done.wait(seconds)

    def _run(self, start: Callable[[Told], str]) -> None:
        try:
            self.name = start(self._told)
        except Exception as error:  # raised again where somebody waits for it
            self.trouble = error
        finally:
            self.over_at = time.monotonic()
            self._done.set()

    def _told(self, text: str, share: float) -> None:
        self.said, self.share = text, min(max(share, 0.0), 1.0)


def begin(of: str, what: object, start: Callable[[Told], str]) -> None:
    """Starts something, unless just that is being started or has been a moment ago.

    Args:
        of: the button that was pressed.
        what: what a second press would start again.
        start: gives the name of the run; told how far it is by the function that it is given.
    """
    job: Starting | None = st.session_state.get(_PLACE)
    if job is not None and (job.of, job.what) == (of, what) and job.trouble is None:
        if not job.over:
            return
        if time.monotonic() - job.over_at < _LATE_SECONDS:
            job.taken_at = 0.0
            return
    if job is not None and not job.over:
        _show(job, "Waiting for the run that is being started …")
    st.session_state[_PLACE] = Starting(of, what, start)


def going(of: str) -> bool:
    """Whether what this button started is on its way, or has come and nobody has gone there."""
    return _current(of) is not None


def follow(of: str, title: str) -> str:
    """Waits for what was begun, and says how far it is; the name of the run.

    Empty where nothing was begun.

    Raises:
        InspectorError: it was refused; nothing was started.
    """
    job = _current(of)
    if job is None:
        return ""
    _show(job, title)
    job.taken_at = time.monotonic()
    if job.trouble is not None:
        raise job.trouble
    return job.name


def just_made(of: str) -> str:
    """Name of the run to which this button has led a moment ago, else empty.

    A second click on a button that is not drawn as pressable any more starts nothing, but draws
    its page anew in place of the one that was being gone to.
    """
    job: Starting | None = st.session_state.get(_PLACE)
    if job is None or job.of != of or not job.taken_at:
        return ""
    return job.name if time.monotonic() - job.taken_at < _LATE_SECONDS else ""


def _current(of: str) -> Starting | None:
    job: Starting | None = st.session_state.get(_PLACE)
    if job is None or job.of != of or job.taken_at:
        return None
    if job.over and time.monotonic() - job.over_at > _STALE_SECONDS:
        return None  # whoever began it has long been elsewhere
    return job


def _show(job: Starting, title: str) -> None:
    if job.over:
        return
    with st.status(title) as status:
        bar = st.empty()
        shown = ("", 0.0)
        while not job.wait(_LOOK_SECONDS):
            said = (job.said, job.share)
            if said != shown:
                status.update(label=job.said or title)
                bar.progress(job.share)
                shown = said
            else:
                bar.progress(job.share)  # any call: here a click is heard
