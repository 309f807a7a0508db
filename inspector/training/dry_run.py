"""One batch through the model before the start, so that what does not fit is refused in words.

Weights, buffers (the statistics of batch normalisation), gradients and random numbers are
afterwards as they were.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from inspector import catalog
from inspector.errors import DataError, ModelError
from inspector.training.expectations import wanted
from inspector.training.order import untouched
from inspector.training.own.batches import size_of, to_device
from inspector.training.own.datasets import OwnSamples
from inspector.training.own.reference import is_code
from inspector.training.replacing import heard
from inspector.training.samples import Draw, Examples
from inspector.training.step import IGNORED
from inspector.training.task import Task
from inspector.training.transcription import check_lengths

_OWN_STEP = ", or define training_step(model, batch) beside it"

_LOG_PROBABILITIES = 1e-2  # what bfloat16 leaves of a sum of 1
_SHAPE_WORDS = re.compile(
    r"shape|size|dimension|mat1|must match|unpack|expected input|Expected \d-?D|channels"
    r"|more than 1 value|subscripts|out of range",
    re.IGNORECASE,
)


def dry_run(task: Task) -> Any:
    """Feeds one batch, and where the last batch is a single sample, that one too.

    Returns:
        The batch, on the CPU, as the model sees it.

    Raises:
        ModelError: a module cannot take the shape it is given (the message names the module,
            the shape it got and the one it wants), or the output does not suit the loss.
        ConfigError: a metric is unknown.
        DataError: a label is out of the model's range, or augmentation gives no usable batch.
        Exception: whatever else the model raises by itself.
    """
    if task.kind != "own":
        catalog.metrics(task.config.metrics, task.kind)
    if not isinstance(task.train_set, Examples):
        batch = _first(task)
        _feed(task, batch)
        _check_own_metrics(task, batch)
        return batch
    size = task.config.batch_size
    count = len(task.train_set)
    batch = _fetch(task, min(size, count))
    outputs = _feed(task, batch)
    if isinstance(outputs, Tensor):
        _check_outputs(task, outputs)
        _check_alignment(task, batch, outputs)
    if count % size == 1:
        _feed(task, _fetch(task, 1))
    _check_own_metrics(task, batch)
    return batch if task.train_set.augment is None else _feed_augmented(task, batch)


def _feed_augmented(task: Task, batch: Any) -> Any:
    """The same samples, augmented; a size that the model does not take is laid to augment."""
    changed = _fetch(task, len(batch[0]), augmented=True)
    before, after = tuple(batch[0].shape[1:]), tuple(changed[0].shape[1:])
    if before == after:
        return changed
    try:
        _feed(task, changed)
    except ModelError as error:
        raise ModelError(
            f"augment makes images of shape {after} out of {before}, and {task.config.model} does "
            f"not take both; give its transforms a size of {list(before[1:])}."
        ) from error
    return changed


def _fetch(task: Task, samples: int, *, augmented: bool = False) -> Any:
    try:
        with torch.random.fork_rng(devices=[]):
            places = range(samples)
            return task.train_set.__getitems__(
                [Draw(place, place) for place in places] if augmented else places
            )
    except (RuntimeError, TypeError, KeyError) as error:
        if isinstance(task.source, OwnSamples):
            raise DataError(
                f"The first {samples} samples cannot be put into one batch "
                f"({_first_line(error)}); give them one shape, or define collate_fn(samples)."
            ) from error
        raise


def _first(task: Task) -> Any:
    with untouched(task.train_loader):
        batch = next(iter(task.train_loader), None)
    if batch is None:
        raise DataError(f"Expected batches from {task.config.data}, but the loader gives none.")
    return batch


def _feed(task: Task, batch: Any) -> Tensor | None:
    """The outputs; None where the step is the user's own, which keeps them to itself."""
    samples = size_of(batch)
    batch = to_device(batch, task.device)
    called = heard(task.model, compiled=task.config.compile)
    with _untouched(task), called, _entered(task.model) as entered:
        try:
            if task.loss_fn is None:
                with torch.enable_grad():  # a step of the user's own may differentiate
                    task.step(task.model, batch)
                return None
            outputs: Any = task.model(batch[0])
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            explanation = _explain(task, entered, error, samples)
            if explanation is None:
                raise
            raise ModelError(explanation) from error
        if not isinstance(outputs, Tensor):
            raise ModelError(
                f"Expected {task.config.model} to return one tensor for the loss, but it returned "
                f"{type(outputs).__name__}; return the tensor of predictions only"
                f"{_OWN_STEP if is_code(task.config.model) else ''}."
            )
        _check_loss(task, outputs, batch[1])
    return outputs


def _check_own_metrics(task: Task, batch: Any) -> None:
    """Where metrics are wanted of a step of the user's own, it is tried on a held-out batch."""
    if task.kind != "own" or not task.config.metrics:
        return
    with untouched(task.val_loader):
        batch = next(iter(task.val_loader), batch)
    with _untouched(task):
        judged = task.validation_step.judge(task.model, to_device(batch, task.device))
    catalog.metrics(task.config.metrics, judged.kind)
    if judged.kind not in ("classification", "sequence", "per_pixel"):
        return
    assert judged.outputs is not None
    known = judged.targets[judged.targets != IGNORED]
    classes = judged.outputs.shape[-1 if judged.kind == "sequence" else 1]
    if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < classes:
        raise ModelError(
            f"'predictions' have scores for {classes} classes, but 'targets' are from "
            f"{int(known.min())} to {int(known.max())}; renumber them from 0 ({IGNORED} counts for "
            "nothing)."
        )


def _check_loss(task: Task, outputs: Tensor, targets: Any) -> None:
    name, got = task.config.model, tuple(outputs.shape)
    if task.kind == "transcription":
        if outputs.ndim != 3 or len(outputs) != len(targets.labels):
            raise ModelError(
                f"Expected log-probabilities of shape ({len(targets.labels)}, steps, classes) from "
                f"{name}, but got {got}; let it end in log_softmax over the classes at each step."
            )
        if bool((outputs.exp().sum(-1) - 1).abs().max() > _LOG_PROBABILITIES):
            raise ModelError(
                f"CTC takes log-probabilities, but the exponentials of what {name} gives do not "
                "sum to 1 over the last axis; let it end in torch.nn.LogSoftmax(dim=-1)."
            )
        _check_range(task, targets.labels, outputs.shape[2])
    elif task.kind == "distribution":
        if outputs.shape != targets.shape:
            raise ModelError(
                f"Expected scores of shape {tuple(targets.shape)} from {name}, one for each share "
                f"of the targets, but got {got}; set num_classes to {targets.shape[1]}."
            )
    elif task.kind == "classification":
        if outputs.ndim != 2:
            raise ModelError(
                f"Expected scores of shape ({len(targets)}, classes) from {name}, "
                f"but got {got}; let it end in one score per class."
            )
    elif task.kind == "sequence":
        if outputs.ndim != 3 or outputs.shape[:2] != targets.shape:
            raise ModelError(
                f"Expected scores of shape {(*targets.shape, 'classes')} from {name}, but got "
                f"{got}; let it give one score per class at each place."
            )
        _check_range(task, targets, outputs.shape[2])
    elif task.kind == "per_pixel":
        if outputs.ndim != 4 or (outputs.shape[0], *outputs.shape[2:]) != tuple(targets.shape):
            wanted = (len(targets), "classes", *targets.shape[1:])
            raise ModelError(
                f"Expected scores of shape {wanted} from {name}, but got {got}; let it give one "
                "score per class at each pixel."
            )
        _check_range(task, targets, outputs.shape[1])
    elif outputs.shape != targets.shape:
        raise ModelError(
            f"Expected {name} to predict numbers of shape {tuple(targets.shape)}, "
            f"but got {got}; set its out_features to match the data."
        )


def _check_range(task: Task, targets: Tensor, scores: int) -> None:
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= scores:
        raise ModelError(
            f"{task.config.model} gives {scores} scores, but {task.config.data} has labels from "
            f"{low} to {high}; set num_classes to {high + 1}, or renumber the labels."
        )


def _check_alignment(task: Task, batch: Any, outputs: Tensor) -> None:
    lengths = getattr(task.source, "lengths", None)
    if task.kind == "transcription" and lengths is not None:
        width = int(batch[1].input_lengths.max())
        check_lengths(lengths, width, outputs.shape[1], task.config.data)


def _check_outputs(task: Task, outputs: Tensor) -> None:
    labels = task.train_set.source.labels
    if task.kind != "classification" or labels is None:
        return
    low, high, scores = int(labels.min()), int(labels.max()), outputs.shape[1]
    if low < 0:
        raise DataError(
            f"Expected labels from 0 to {scores - 1} in {task.config.data}, but got {low} "
            "(the loss would ignore or misread it); renumber the labels."
        )
    if high >= scores:
        raise ModelError(
            f"{task.config.model} gives {scores} scores, but {task.config.data} has labels up to "
            f"{high}; set num_classes to {high + 1}, or leave it out of model_args."
        )


@contextlib.contextmanager
def _untouched(task: Task) -> Iterator[None]:
    """No gradients; buffers and random numbers are put back."""
    model = task.model
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    cuda = [task.device] if task.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.no_grad():
        try:
            yield
        finally:
            for name, buffer in model.named_buffers():
                if name in buffers:
                    buffer.copy_(buffers[name])


Entered = list[tuple[str, nn.Module, tuple[Any, ...]]]


@contextlib.contextmanager
def _entered(model: nn.Module) -> Iterator[Entered]:
    """The modules whose forward has begun and not ended, outermost first, with their inputs."""
    entered: Entered = []
    handles = []
    for path, module in model.named_modules():

        def enter(module: nn.Module, inputs: tuple[Any, ...], path: str = path) -> None:
            entered.append((path, module, inputs))

        def leave(*_: object) -> None:
            entered.pop()

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))
    try:
        yield entered
    finally:
        for handle in handles:
            handle.remove()


def _explain(task: Task, entered: Entered, error: Exception, samples: int) -> str | None:
    """The refusal in words; None if the error is not one of shapes."""
    if not entered:
        return None
    path, module, inputs = entered[-1]
    name = f"Module {path!r}" if path else f"Model {task.config.model}"
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    got = " and ".join(str(tuple(tensor.shape)) for tensor in tensors) or "no tensor"
    if samples == 1 and "more than 1 value" in str(error):
        return (
            f"The last batch of an epoch holds one sample ({len(task.train_set)} samples in "
            f"batches of {task.config.batch_size}), and {name} ({type(module).__name__}) needs "
            "more than one to normalise; change batch_size or validation."
        )
    want = wanted(module, tensors[0]) if tensors else None
    if want is not None:
        return (
            f"{name} ({type(module).__name__}) got an input of shape {got}, but wants {want}; "
            "change its sizes in model_args, or choose other data."
        )
    if _SHAPE_WORDS.search(str(error)):
        return (
            f"{name} ({type(module).__name__}) cannot take an input of shape {got} "
            f"({_first_line(error)}); change its sizes in model_args, or choose other data."
        )
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
