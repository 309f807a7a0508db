"""What the batches look like: scale of the inputs, targets and classes, and their order."""

from __future__ import annotations

import math
import zlib
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from inspector.capture import native
from inspector.capture.answers import Answers
from inspector.capture.examine_changes import InputBursts, LabelMemory
from inspector.capture.examine_neighbours import Sample
from inspector.capture.examine_targets import TargetFacts
from inspector.capture.reductions import count_nonfinite
from inspector.capture.transfer import Scalar

_SCALE = ("nonfinite", "mean", "std", "rms", "min", "max")
_FEATURES = ("features", "offset", "feature_std_ratio", "feature_std_median", "feature_std_max")
_COUNTS = ("nonfinite", "features")
_FETCHED = 1 << 22  # targets of a batch
_PICKED = 4096  # values that tell batches apart
_REPEATS = 256  # of batches, after which their order is known
_BATCHES = 2000  # fingerprints remembered
_INPUT_PASSES = 16
_CALLS = 8  # of a step whose batches are compared, each with those at its own place
_SAME_SCALE = 9.0  # mean squares of batches further apart are of different units


class DataFacts:
    """Inputs, targets and the order of batches, from hooks and from the loader's data set."""

    def __init__(self, loader: Any, answers: Answers | None = None) -> None:
        self._answers = answers = answers or Answers()
        self._inputs: dict[str, Any] = {}
        self._input_passes = 0
        self._targets = TargetFacts()
        self._sample = Sample()
        self._batches: dict[tuple[float, ...], int] = {}
        self._repeats = 0
        self._follows_first_order = 0
        self._previous: int | None = None
        self._last_step = -1
        self._batch_tensor: Tensor | None = None
        self._between: dict[tuple[str, int], _Between] = {}
        self._bursts = InputBursts(answers)
        self._memory = LabelMemory(answers)
        self._latest: Tensor | None = None
        self._loader = _describe_loader(loader)
        self._whole: TargetFacts | None = None
        self._examine_dataset(loader)

    def _examine_dataset(self, loader: Any) -> None:
        dataset = getattr(loader, "dataset", None)
        if dataset is None:
            return
        inputs, targets = _tensors_of(dataset)
        if targets is None or len(targets) < 2:
            return
        size = self._loader.get("batch_size") or 32
        self._whole = TargetFacts()
        for start in range(0, min(len(targets), 200 * size), size):
            self._whole.add(targets[start : start + size])
        if inputs is not None and len(inputs) == len(targets):
            picked = torch.arange(0, len(targets), max(len(targets) // 512, 1), device="cpu")[:512]
            self._sample.add(inputs[picked], targets[picked])

    # ------------------------------------------------------------------ batches

    @property
    def wants_order(self) -> bool:
        """Whether the order of batches is known neither from the loader nor from enough repeats."""
        return self._loader.get("order") is None and self._repeats < _REPEATS

    @property
    def wants_targets(self) -> bool:
        return not self._targets.enough

    def batch(self, inputs: Tensor, step: int) -> None:
        """Notes a training batch, to see whether batches return in the same order."""
        if inputs.numel() == 0 or inputs.is_cuda or inputs.is_sparse:
            return
        mark = _fingerprint(inputs)
        position = self._batches.get(mark)
        if position is None:
            if len(self._batches) < _BATCHES:
                position = len(self._batches)
                self._batches[mark] = position
        elif step != self._last_step:
            self._repeats += 1
            expected = None if self._previous is None else self._previous + 1
            self._follows_first_order += position == expected or position == 0
        self._previous = position
        self._last_step = step

    def inputs(
        self,
        inputs: Tensor,
        entry: tuple[str, Tensor | None],
        step: int,
        call: tuple[str, int] | None = ("", 0),
    ) -> None:
        """Statistics of what the first operation with parameters receives.

        Args:
            call: the model, and its how-many-eth call of the step, since these may get different
                things in turn; None where a watched model has made the inputs.
        """
        operation, received = entry
        self._latest = inputs.detach()
        self._bursts.add(received if received is not None else inputs, step)
        self._batch_tensor = inputs.detach()[:64] if not self._sample.full else None
        if call is not None and (call in self._between or len(self._between) < _CALLS):
            self._between.setdefault(call, _Between(self._answers)).add(inputs.detach())
        if self._input_passes >= _INPUT_PASSES:
            return
        values = received if received is not None else inputs
        self._input_passes += 1
        facts = {
            "shape": list(values.shape),
            "dtype": str(values.dtype).removeprefix("torch."),
            "operation": operation,
            "raw_shape": list(inputs.shape),
        }
        names, numbers = _scale(values.detach())
        raw = _nonfinite(inputs.detach())
        self._answers.ask(partial(self._note_inputs, facts, names), raw, *numbers)

    def _note_inputs(
        self, facts: dict[str, Any], names: tuple[str, ...], raw: Any, *numbers: Any
    ) -> None:
        """One pass: non-finite inputs, and what :func:`_scale` says of what was received."""
        found = {name: float(number) for name, number in zip(names, numbers, strict=True)}
        if not found.get("features", 1):  # nothing varies
            found = {name: found[name] for name in names[: names.index("features")]}
        facts |= {name: int(n) if name in _COUNTS else n for name, n in found.items()}
        previous = self._inputs
        facts["raw_nonfinite"] = int(raw) + previous.get("raw_nonfinite", 0)
        facts["nonfinite"] = facts.get("nonfinite", 0) + previous.get("nonfinite", 0)
        facts["largest_rms"] = max(facts.get("rms", 0.0), previous.get("largest_rms", 0.0))
        self._inputs = facts

    def targets(self, targets: Tensor, outputs: Tensor, step: int) -> None:
        """A training batch's targets, beside the outputs that they are compared with."""
        if self._latest is not None:
            self._memory.add(self._latest, targets, step)
            self._latest = None
        if self._targets.enough or step < 0:
            return
        if not self._targets.new_step(step):
            return
        known, shape = _first_samples(targets.detach()), outputs.shape
        self._answers.ask(lambda targets: self._targets.add(targets, shape), known)
        if self._whole is None and self._batch_tensor is not None:
            count = len(self._batch_tensor)
            if targets.dim() and len(targets) >= count:
                first = targets.detach()[:count]
                self._answers.ask(self._sample.add, self._batch_tensor, first)
        self._batch_tensor = None

    def end_burst(self) -> None:
        """What comes now is compared with what came before."""
        self._latest = None
        self._bursts.end_burst()
        self._memory.end_burst()

    def _ratio(self) -> float | None:
        """That of the calls whose batches differ least: a sorted data set shows in each."""
        known = [ratio for b in self._between.values() if (ratio := b.ratio()) is not None]
        return min(known, default=None)

    def document(self) -> dict[str, Any]:
        return {
            "inputs": self._inputs,
            "input_bursts": self._bursts.document(),
            "labels_again": self._memory.document(),
            "targets": self._targets.document(),
            "dataset": self._whole.document() if self._whole is not None else {},
            "neighbours": self._sample.document(),
            "order": {
                **self._loader,
                "batches_seen": len(self._batches),
                "repeated": self._repeats,
                "in_first_order": self._follows_first_order,
                "inputs_between": self._ratio(),
            },
        }


class _Between:
    """How much the means of batches differ, beside what chance gives: 1 for random batches."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._means: list[Tensor] = []
        self._variances: list[Tensor] = []
        self._sizes: list[float] = []
        self._size = 0

    def add(self, inputs: Tensor) -> None:
        usable = inputs.dtype.is_floating_point and inputs.dim() >= 2
        if not usable or len(self._means) >= 64 or len(inputs) < 4:
            return
        flat = inputs.flatten(1).float()
        flat = flat[:, :: max(flat.shape[1] // 256, 1)]
        variance, mean = torch.var_mean(flat, 0)
        size = flat.square().mean()
        self._answers.ask(partial(self._note, len(inputs)), size, mean, variance)

    def _note(self, count: int, square: Any, mean: Tensor, variance: Tensor) -> None:
        if self._means and (self._size != count or self._means[0].shape != mean.shape):
            return
        self._size = count
        size = float(square)
        usual = sorted(self._sizes)[len(self._sizes) // 2] if self._sizes else size
        if not usual / _SAME_SCALE <= size <= usual * _SAME_SCALE:
            return  # other units, such as pixels that are no longer scaled: no matter of order
        self._sizes.append(size)
        self._means.append(mean)
        self._variances.append(variance)

    def ratio(self) -> float | None:
        if len(self._means) < 8:
            return None
        between = torch.stack(self._means).var(0).sum() * self._size
        within = torch.stack(self._variances).mean(0).sum()
        ratio = float(between / within) if within > 0 else math.nan
        return ratio if math.isfinite(ratio) else None


def _describe_loader(loader: Any) -> dict[str, Any]:
    if not isinstance(loader, DataLoader):
        return {"loader": "" if loader is None else type(loader).__name__}
    facts: dict[str, Any] = {"loader": "DataLoader", "batch_size": loader.batch_size}
    sampler: Any = getattr(loader.batch_sampler, "sampler", loader.sampler)
    if isinstance(sampler, RandomSampler):
        facts["order"] = "random"
    elif isinstance(sampler, SequentialSampler):
        facts["order"] = "sequential"
    facts["sampler"] = type(sampler).__name__
    facts["weighted"] = isinstance(sampler, WeightedRandomSampler)
    if hasattr(loader.dataset, "__len__"):
        facts["samples"] = len(loader.dataset)
    try:
        facts["batches"] = len(loader)
    except TypeError:  # the data set is a stream
        facts["batches"] = None
    return facts


def _tensors_of(dataset: Any) -> tuple[Tensor | None, Tensor | None]:
    """Inputs and targets where the data set holds them as tensors or lists; nothing is loaded."""
    if isinstance(dataset, Subset):
        inputs, targets = _tensors_of(dataset.dataset)
        indices = torch.as_tensor(list(dataset.indices), dtype=torch.long, device="cpu")
        return (
            None if inputs is None else inputs[indices],
            None if targets is None else targets[indices],
        )
    if isinstance(dataset, TensorDataset):
        tensors = dataset.tensors
        if len(tensors) == 2:
            return tensors[0].detach().cpu(), tensors[1].detach().cpu()
        return None, None
    for name in ("targets", "labels"):
        kept = getattr(dataset, name, None)
        if isinstance(kept, Tensor):
            return None, kept.detach().cpu()
        if isinstance(kept, list) and kept and isinstance(kept[0], int):
            return None, torch.tensor(kept, device="cpu")
    return None, None


def _fingerprint(inputs: Tensor) -> tuple[int, ...]:
    """The batch's length and size, and a checksum of values from all over it."""
    extension = native.load()
    if extension is not None and (checksum := extension.checksum(inputs)):
        return len(inputs) if inputs.dim() else 0, inputs.numel(), checksum
    flat = inputs.detach().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    picked = flat[:: max(flat.numel() // _PICKED, 1)].contiguous()
    return (
        len(inputs) if inputs.dim() else 0,
        flat.numel(),
        zlib.crc32(picked.view(torch.uint8).numpy().data),
    )


def _first_samples(targets: Tensor) -> Tensor:
    """All targets; of very many on a device the first samples, as they have to be fetched."""
    if targets.is_cpu or targets.numel() <= _FETCHED or not targets.dim():
        return targets
    return targets[: max(_FETCHED * len(targets) // targets.numel(), 1)]


def _nonfinite(values: Tensor) -> Scalar:
    return count_nonfinite(values) if values.dtype.is_floating_point else 0.0


def _scale(values: Tensor) -> tuple[tuple[str, ...], list[Scalar]]:
    """Names and values of the statistics of a batch; those of features go last."""
    if not values.dtype.is_floating_point or values.numel() < 2 or values.dim() < 1:
        return (), []
    flat = values.float()
    nonfinite = _nonfinite(flat)
    flat = torch.nan_to_num(flat, nan=0.0, posinf=0.0, neginf=0.0)
    std, mean = torch.std_mean(flat)
    rms = flat.square().mean().sqrt()
    found: list[Scalar] = [nonfinite, mean, std, rms, flat.min(), flat.max()]
    if values.dim() < 2 or len(values) < 8:
        return _SCALE, found
    features = flat.movedim(1, -1).flatten(0, -2) if values.dim() == 4 else flat.flatten(1)
    spread, centre = torch.std_mean(features, 0)
    varying = spread > 1e-12
    spread = spread.where(varying, torch.nan)
    middle, largest = spread.nanmedian(), spread.nan_to_num(0.0).max()
    offset = (centre.abs() / spread).nanmedian()
    return (*_SCALE, *_FEATURES), [
        *found, varying.sum(), offset, largest / middle, middle, largest,
    ]  # fmt: skip
