"""A run in a child process: the same loop, for CUDA and for whoever wants a crash to stay there.

The child (``child.py``) answers with ``progress`` of a download, ``ready`` before it makes the run,
then with the ``name`` of the run. From then on it lives by itself, reads its commands from the run
directory, and survives the app. Where nobody listens before that, it ends and makes nothing.
"""

from __future__ import annotations

import threading
from pathlib import Path

from inspector.config import RunConfig
from inspector.errors import InspectorError
from inspector.training.asking import ask
from inspector.training.downloads import Progress


def start(config: RunConfig, runs_dir: Path, name: str, progress: Progress | None = None) -> str:
    """Starts the child and waits until the run exists; its name.

    Raises:
        InspectorError: what the child refused, or that it died.
    """
    arguments = [str(runs_dir), name]
    with ask("inspector.training.child", arguments, config.to_dict(), apart=True) as child:
        for answer in child:
            if "progress" in answer and progress is not None:
                progress(*answer["progress"])
            if "name" in answer:
                # Reaps the child, so that it does not look alive after its end.
                reaper = threading.Thread(target=child.process.wait, name="inspector-child")
                reaper.daemon = True
                reaper.start()
                return str(answer["name"])
        last = child.last_words()
        raise InspectorError(
            f"The training process ended with code {child.process.returncode} before the run "
            f"began: {last}."
        )
