"""``python -m inspector.training.child RUNS_DIR NAME``: the other end of ``process.py``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from inspector.config import RunConfig
from inspector.errors import InspectorError
from inspector.training.asking import Answers
from inspector.training.runner import prepare, train_and_record
from inspector.watching import Watch


def main(runs_dir: Path, name: str) -> None:
    """Reads the configuration from standard input, answers on standard output, trains."""
    answer = Answers()

    def started(watch: Watch) -> None:
        log = os.open(watch.run_path / "blobs" / "output.log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        answer(name=watch.run_name)

    try:
        config = RunConfig.from_dict(json.load(sys.stdin))
        prepared = prepare(config, runs_dir, name, lambda *done: answer(progress=done))
        if isinstance(prepared, str):
            answer(name=prepared)
            return
        answer(ready=True)
        if answer.heard:
            train_and_record(prepared, runs_dir, name, started)
    except InspectorError as error:
        answer.refuse(error)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
