"""What is different since a step: facts of one burst beside those of the bursts before.

Between two bursts nothing is looked at; so a change has happened after the last step seen as
before (``after``) and at the latest at the first one seen otherwise (``seen``), 0-based.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inspector.capture.answers import Answers

_LEAST_STEPS = 6  # examined steps of a burst without any gradient: not the turn of another model
_REWRITTEN = 3.0  # factor by which a weight's size changes while nobody looks
_ROWS = 10  # bursts kept: the first, and the latest ones
_SAMPLES = 2048  # inputs whose label is remembered
_OF_A_BATCH = 64


class Change:
    """One parameter: since when no gradient comes; whether somebody else wrote its values.

    The second is told by its version counter, which every step of the optimizer raises by the same.
    What is written through ``.data`` does not raise it.
    """

    __slots__ = (
        "_answers", "_last", "_learning", "_per_step", "_rms", "_seen", "_trained", "_version",
        "_with", "_without", "rewritten", "stopped",
    )  # fmt: skip

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.stopped: dict[str, Any] | None = None
        self.rewritten: dict[str, Any] | None = None
        self._trained: int | None = None  # last step with a gradient, of bursts full of them
        self._with = self._without = 0
        self._last = -1
        self._seen = -1
        self._version = self._per_step = 0
        self._learning = True  # in the first burst: how much a step raises the version
        self._rms: float | None = None

    def look(self, tensor: Tensor, step: int) -> Callable[[float], None]:
        """After the optimizer's step number ``step``, gradients still there.

        Gives what is to be told the size of the values, where that is measured.
        """
        if tensor.grad is None:
            self._without += 1
            self._seen = step if self._without == 1 else self._seen
        else:
            self._with += 1
        if self._with:
            self.stopped = None
        elif self._without >= _LEAST_STEPS and self._trained is not None and not self.stopped:
            self.stopped = {
                "after": self._trained, "seen": self._seen, "required": tensor.requires_grad,
            }  # fmt: skip
        writes = tensor._version - self._version - (step - self._last) * self._per_step
        foreign = writes > 0 and self._per_step > 0
        sized = partial(self._sized, weakref.ref(tensor) if foreign else None, self._last, step)
        if self._learning and self._last >= 0 and self._last == step - 1:
            self._per_step = max(self._per_step, tensor._version - self._version)
        self._version, self._last = tensor._version, step
        return sized

    def _sized(self, written: weakref.ref[Tensor] | None, last: int, step: int, rms: float) -> None:
        """The size of the values at ``step``; ``written`` to more often than by steps."""
        if not math.isfinite(rms):
            return
        tensor = None if written is None else written()
        if tensor is not None:
            self._compare(tensor, rms, last, step)
        self._rms = rms

    def _compare(self, tensor: Tensor, rms: float, last: int, step: int) -> None:
        """Whether the size is another than before somebody wrote."""
        if self.rewritten is not None:
            back = rms / self.rewritten["before"]
            self.rewritten = None if 0.5 < back < 2 else self.rewritten
            return
        factor = rms / self._rms if self._rms else 1.0
        if not 1 / _REWRITTEN < factor < _REWRITTEN:
            flat = tensor.detach().flatten(1).float()
            found = {"after": last, "seen": step, "before": self._rms, "rms": rms, "spread": 1.0}
            self.rewritten = found
            if len(flat) > 1:
                spread = flat.std(0).square().mean().sqrt()
                self._answers.ask(lambda by: found.update(spread=float(by) / rms), spread)

    def end_burst(self) -> None:
        """What comes now is compared with what came before."""
        if self._with and not self._without:
            self._trained = self._last
        self._learning &= self._per_step == 0
        self._with = self._without = 0

    def row(self) -> dict[str, Any]:
        """``stopped`` and ``rewritten``, each None or what is known of it."""
        return {"stopped": self.stopped, "rewritten": self.rewritten}


class InputBursts:
    """The size of what the first operation with parameters receives, burst by burst."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._rows: list[dict[str, Any]] = []
        self._squares: list[float] = []
        self._first = self._last = 0

    def add(self, values: Tensor, step: int) -> None:
        if values.dtype.is_floating_point and values.numel() >= 2:
            norm = torch.linalg.vector_norm(values.detach().float())
            self._answers.ask(partial(self._note, values.numel(), step), norm)

    def _note(self, count: int, step: int, norm: Any) -> None:
        size = float(norm) ** 2 / count
        if not math.isfinite(size):
            return
        if not self._squares:
            self._first = step
        elif self._jumps(size):
            self._close()
            self._first = step
        self._squares.append(size)
        self._last = step

    def _jumps(self, size: float) -> bool:
        """Whether the change falls into this burst, which then ends here."""
        usual = self._squares[-1]
        return usual > 0 and not 1 / 16 < size / usual < 16

    def end_burst(self) -> None:
        self._answers.ask(self._close)

    def _close(self) -> None:
        if self._squares:
            self._rows.append(self._row())
            del self._rows[1 : -(_ROWS - 1)]
        self._squares = []

    def _row(self) -> dict[str, Any]:
        rms = math.sqrt(sum(self._squares) / len(self._squares))
        return {"first": self._first, "last": self._last, "rms": rms}

    def document(self) -> list[dict[str, Any]]:
        """Rows with ``first``, ``last`` and ``rms``; of all bursts the first and the latest."""
        return [*self._rows, *([self._row()] if self._squares else ())]


class LabelMemory:
    """Whether an input that returns still has the label that it had."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._labels: dict[tuple[float, ...], float] = {}
        self._rows: list[dict[str, Any]] = []
        self._first = self._last = -1
        self._again = self._same = 0

    def add(self, inputs: Tensor, targets: Tensor, step: int) -> None:
        """The inputs and targets of a batch; the first 64 samples are looked at."""
        paired = inputs.dim() >= 2 and targets.dim() >= 1 and len(inputs) == len(targets)
        if not paired or inputs.is_sparse or inputs.is_complex() or targets.is_complex():
            return
        flat = inputs.detach()[:_OF_A_BATCH].flatten(1)
        picked = flat[:, :: max(flat.shape[1] // 16, 1)][:, :16].float()
        first = targets.detach()[:_OF_A_BATCH]
        labels = first.flatten(1)[:, 0] if first.dim() > 1 else first
        self._answers.ask(partial(self._note, step), picked, labels)

    def _note(self, step: int, picked: Any, labels: Any) -> None:
        self._first = step if self._first < 0 else self._first
        self._last = step
        for mark, label in zip(picked.tolist(), labels.tolist(), strict=True):
            key = tuple(mark)
            known = self._labels.get(key)
            if known is not None:
                self._again += 1
                self._same += known == label
            elif len(self._labels) < _SAMPLES:
                self._labels[key] = label

    def end_burst(self) -> None:
        self._answers.ask(self._close)

    def _close(self) -> None:
        if self._first >= 0:
            self._rows.append(self._row())
            del self._rows[1 : -(_ROWS - 1)]
        self._first, self._again, self._same = -1, 0, 0

    def _row(self) -> dict[str, Any]:
        return {
            "first": self._first, "last": self._last, "again": self._again, "same": self._same,
        }  # fmt: skip

    def document(self) -> list[dict[str, Any]]:
        """Rows with ``first``, ``last``, known inputs seen ``again``, labels the ``same``."""
        return [*self._rows, *([self._row()] if self._first >= 0 else ())]


class Form:
    """Activations and neighbouring linear modules of one pass."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.functions: Counter[str] = Counter()
        self.pairs: list[dict[str, Any]] = []

    def count(self, function: str) -> None:
        self.functions[function.lower()] += 1

    def pair(self, first: str, second: str, widths: list[int]) -> None:
        if len(self.pairs) < 20:
            self.pairs.append({"first": first, "second": second, "widths": widths})

    def is_like(self, other: Form) -> bool:
        return self.functions == other.functions and self.pairs == other.pairs

    def row(self) -> dict[str, Any]:
        return {"functions": dict(self.functions), "pairs": self.pairs}


class Forms:
    """The form of each entry's graph, and since when it is not that of the first pass."""

    def __init__(self) -> None:
        self._first: dict[str, Form] = {}
        self._now: dict[str, Form] = {}
        self._last: dict[str, int] = {}
        self._same: dict[str, int] = {}
        self._other: dict[str, tuple[int, Form]] = {}

    def begin(self, entry: str, step: int) -> Form | None:
        """The form to be filled, at an entry's first pass of a burst; None at the others."""
        self._last[entry] = step
        if entry in self._now:
            return None
        form = self._now[entry] = Form(step)
        self._first.setdefault(entry, form)
        return form

    def end_burst(self) -> None:
        """What comes now is compared with what came before."""
        for entry, form in self._now.items():
            if form.is_like(self._first[entry]):
                self._same[entry] = self._last[entry]
                self._other.pop(entry, None)
            else:
                self._other.setdefault(entry, (self._same.get(entry, 0), form))
        self._now = {}

    def document(self) -> list[dict[str, Any]]:
        """A row for each entry whose form changed: ``after``, ``seen``, and ``was`` and ``now``."""
        return [
            {"entry": entry, "after": after, "seen": form.step,
             "was": self._first[entry].row(), "now": form.row()}
            for entry, (after, form) in self._other.items()
        ]  # fmt: skip
