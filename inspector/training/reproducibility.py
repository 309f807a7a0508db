"""Deterministic algorithms, and whether two runs of one configuration agree bit for bit."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inspector.capture.activations import tensors_in
from inspector.config import RunConfig
from inspector.errors import InspectorError
from inspector.events import RunFailed
from inspector.store.reader import Run
from inspector.training.step import Scores, Step
from inspector.training.task import Task

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_REFUSED = re.compile(r"^(.+?) does not have a deterministic implementation", re.MULTILINE)

Record = dict[str, Any]
"""One step: checksums of ``state`` (by name), ``batch``, ``gradients`` (by name), and ``loss``."""


@contextlib.contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """PyTorch's deterministic algorithms only; process-wide switches are restored afterwards."""
    if not on:
        yield
        return
    cudnn = torch.backends.cudnn
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
        os.environ.get(_CUBLAS),
    )
    os.environ.setdefault(_CUBLAS, ":4096:8")  # cuBLAS is deterministic with a fixed workspace
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        enabled, warn_only, cudnn.deterministic, cudnn.benchmark, workspace = before
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        if workspace is None:
            os.environ.pop(_CUBLAS, None)


def explain(error: BaseException) -> str | None:
    """The sentence for an operation that has no deterministic version; None for other errors."""
    found = _REFUSED.search(str(error))
    if not isinstance(error, RuntimeError) or found is None:
        return None
    return (
        f"{found[1]} has no deterministic version, and deterministic is on: replace the "
        "operation, or switch deterministic off."
    )


# ---------------------------------------------------------------- do two runs agree?


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a comparison of two runs has found.

    Attributes:
        same: everything agreed, bit for bit.
        steps: that were compared.
        step: the first that differs; None if all agree.
        where: what differs first in it: initial weights, batch, loss, gradients or weights.
        tensor: name of the first tensor that differs, where it has one.
        meaning: what follows from it.
    """

    same: bool
    steps: int
    step: int | None = None
    where: str = ""
    tensor: str = ""
    meaning: str = ""

    @property
    def text(self) -> str:
        """The answer in one sentence."""
        if self.same:
            return f"Two runs agree bit for bit over {self.steps} steps."
        of = f" of {self.tensor}" if self.tensor else ""
        return f"Two runs differ from step {self.step} on: first in the {self.where}{of}."


def compare(one: Sequence[Record], other: Sequence[Record]) -> Agreement:
    """The first difference between the records of two runs."""
    for step, (a, b) in enumerate(zip(one, other, strict=False)):
        for part, where in (
            ("state", "initial weights" if step == 0 else "weights"),
            ("batch", "batch"),
            ("loss", "loss"),
            ("gradients", "gradients"),
        ):
            tensor = _first(a[part], b[part])
            if tensor is not None:
                at = step - 1 if where == "weights" else step
                return Agreement(False, len(one), at, where, tensor, _MEANINGS[where])
    if len(one) != len(other):
        last = min(len(one), len(other))
        return Agreement(False, last, last, "number of steps", "", _MEANINGS["batch"])
    return Agreement(True, len(one))


def trace(config: RunConfig, steps: int, told: Callable[[Record], None]) -> None:
    """Trains ``steps`` steps in a folder of its own and tells checksums of each.

    Raises:
        InspectorError: the configuration cannot work, or the user's code raised.
    """
    from inspector.training.runner import prepare, train_and_record

    with tempfile.TemporaryDirectory() as folder:
        unattended = dataclasses.replace(
            config.controls,
            max_steps_per_s=None,
            on_nonfinite="skip" if config.controls.on_nonfinite == "skip" else "continue",
        )
        short = dataclasses.replace(
            config, steps=steps, checkpoint_every=0, early_stopping=0, controls=unattended
        )
        task = prepare(short, Path(folder), "trace")
        if isinstance(task, str):
            raise _failure(Path(folder) / task) or InspectorError("The run did not begin.")
        tracer = _Tracer(task, told)
        train_and_record(
            dataclasses.replace(task, step=tracer), Path(folder), "trace", lambda _: None
        )
        tracer.close()
        if (failed := _failure(Path(folder) / "trace")) is not None:
            raise failed


def _failure(path: Path) -> InspectorError | None:
    with Run(path) as run:
        texts = [s.event.text for s in run.events() if isinstance(s.event, RunFailed)]
    return InspectorError(texts[0]) if texts else None


class _Tracer:
    """Stands in for the step: notes what goes into it and what comes out."""

    def __init__(self, task: Task, told: Callable[[Record], None]) -> None:
        self._inner: Step = task.step
        self._model, self._told = task.model, told
        self._record: Record = {}
        self._hook = task.optimizer.register_step_pre_hook(self._gradients)

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Scores]:
        if not self._record:
            self._record = {"state": _checksums(self._model.state_dict()), "batch": 0, "loss": 0}
        self._record["batch"] = _add(self._record["batch"], *tensors_in(batch))
        loss, scores = self._inner(model, batch)
        self._record["loss"] = _add(self._record["loss"], loss)
        return loss, scores

    def _gradients(self, *_: Any) -> None:
        found = {n: p.grad for n, p in self._model.named_parameters() if p.grad is not None}
        self._told({**self._record, "gradients": _checksums(found)})
        self._record = {}

    def close(self) -> None:
        self._hook.remove()


def _checksums(tensors: Mapping[str, Any]) -> dict[str, int]:
    return {name: _add(0, held) for name, held in tensors.items() if isinstance(held, Tensor)}


def _add(checksum: int, *tensors: Tensor) -> int:
    for tensor in tensors:
        data = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
        numbers = data.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        checksum = zlib.crc32(numbers.tobytes(), checksum)
    return checksum


def _first(one: Any, other: Any) -> str | None:
    """Name of the first tensor that differs, empty if it has none; None if nothing does."""
    if not isinstance(one, dict):
        return None if one == other else ""
    return next((name for name in one if one[name] != other.get(name)), None)


_MEANINGS = {
    "initial weights": "The model draws its weights from random numbers that the seed does not "
    "reach, such as a generator of its own, the time or os.urandom.",
    "batch": "The data comes in another order or with other values: it uses random numbers that "
    "the seed does not reach, or an order that is not fixed, such as that of a set or a folder.",
    "loss": "Weights and batch were the same, so the forward pass draws random numbers that the "
    "seed does not reach, or uses an operation that is not deterministic; switch deterministic on.",
    "gradients": "The loss was the same, so an operation of the backward pass is not "
    "deterministic; switch deterministic on to have it named or replaced.",
    "weights": "Gradients were the same, so something besides the optimizer changes weights or "
    "buffers with random numbers of its own.",
}
