"""A snippet that runs beside the page, so that a button can stop it."""

from __future__ import annotations

import threading
import time

from inspector.errors import InspectorError
from inspector.lab.report import Report
from inspector.lab.sandbox import Sandbox


class Job:
    """One run of a snippet; it starts at once.

    Attributes:
        report: what became of it; None while it runs.
    """

    def __init__(self, sandbox: Sandbox, code: str) -> None:
        self.report: Report | None = None
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._done = threading.Event()
        threading.Thread(
            target=self._run, args=(sandbox, code), name="inspector-lab-job", daemon=True
        ).start()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    def wait(self, seconds: float) -> bool:
        """Whether it is over, at the latest after that time."""
        return self._done.wait(seconds)

    def stop(self) -> None:
        """Ends it soon; what was printed so far is kept."""
        self._stop.set()

    def _run(self, sandbox: Sandbox, code: str) -> None:
        try:
            self.report = sandbox.run(code, stop=self._stop)
        except InspectorError as error:
            self.report = Report(stopped=str(error))
        except Exception as error:  # the page must not wait for ever
            self.report = Report(stopped=f"The lab failed with {type(error).__name__}: {error}")
        finally:
            self._done.set()
