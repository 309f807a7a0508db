"""Checks of a configuration before hours are spent on it, each in processes of its own.

``python -m inspector.training.checks`` is the other end: it reads what to do from standard input
and answers with one JSON object a line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from inspector.config import RunConfig
from inspector.errors import InspectorError
from inspector.numerals import short
from inspector.training.asking import Answers, ask
from inspector.training.overfitting import Verdict, overfit
from inspector.training.reproducibility import Agreement, Record, compare, trace

OVERFIT_STEPS = 1000
COMPARED_STEPS = 10

Told = Callable[[str, float], None]


def check_overfit(
    config: RunConfig, steps: int = OVERFIT_STEPS, told: Told | None = None
) -> Verdict:
    """Whether the model learns one batch by heart; see :func:`overfitting.overfit`.

    Raises:
        InspectorError: the configuration cannot work, or the user's code raised.
    """
    verdict: Verdict | None = None
    for answer in _ask("overfit", config, steps):
        if "verdict" in answer:
            verdict = Verdict(**answer["verdict"])
        elif told is not None:
            told(f"step {answer['step']}, loss {short(answer['loss'], 3)}", answer["step"] / steps)
    if verdict is None:
        raise InspectorError("The check ended without an answer.")
    return verdict


def check_reproducibility(
    config: RunConfig, steps: int = COMPARED_STEPS, told: Told | None = None
) -> Agreement:
    """Whether two runs of the configuration agree bit for bit over so many steps.

    Raises:
        InspectorError: the configuration cannot work, or the user's code raised.
    """
    records: list[list[Record]] = [[], []]
    for number, run in enumerate(records):
        for answer in _ask("trace", config, steps):
            run.append(answer)
            if told is not None:
                share = (number * steps + len(run)) / (2 * steps)
                told(f"run {number + 1}, step {len(run)}", share)
    return compare(*records)


def _ask(kind: str, config: RunConfig, steps: int) -> Iterator[dict[str, Any]]:
    question = {"kind": kind, "config": config.to_dict(), "steps": steps}
    with ask("inspector.training.checks", [], question) as child:
        yield from child
        last = child.last_words()
        if code := child.process.returncode:
            raise InspectorError(f"The check ended with code {code}: {last}.")


def main() -> None:
    """Reads what to do from standard input, answers on standard output."""
    answer = Answers()
    asked = json.load(sys.stdin)
    try:
        config, steps = RunConfig.from_dict(asked["config"]), asked["steps"]
        if asked["kind"] == "trace":
            trace(config, steps, lambda record: answer(**record))
        else:
            verdict = overfit(config, steps, lambda step, loss: answer(step=step, loss=loss))
            answer(verdict=asdict(verdict))
    except InspectorError as error:
        answer.refuse(error)
    except Exception as error:
        answer.refuse(InspectorError(f"Your code raised {type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
