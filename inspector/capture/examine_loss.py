"""Which loss is computed from what: read from the loss module and from the loss's graph."""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from inspector.capture.answers import Answers
from inspector.capture.examine_graph import VIEWS, base_name, inputs_of, saved, through, walk

LOSSES = {
    "NllLoss": "nll", "NllLoss2D": "nll", "NllLossNd": "nll", "MseLoss": "mse",
    "BinaryCrossEntropy": "bce", "BinaryCrossEntropyWithLogits": "bce_with_logits",
    "SmoothL1Loss": "smooth_l1", "HuberLoss": "huber", "KlDiv": "kl_div",
    "SoftMarginLoss": "soft_margin", "MultiMarginLoss": "multi_margin",
    "CtcLoss": "ctc", "CrossEntropyLoss": "cross_entropy",
}  # fmt: skip
_SHORT_LIMIT = 400
_GONE = 8  # losses in a row, all that are examined in a burst of steps
_BOUNDED = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid",
            "Tanh": "tanh", "Relu": "relu"}  # fmt: skip
_TAKES_LOGITS = {"LogSoftmax": "log_softmax", "BinaryCrossEntropyWithLogits": "bce_with_logits"}


class LossFacts:
    """The loss function, what feeds it, its sign, and the range of the outputs."""

    def __init__(self, loss_fn: Any, owners: dict[int, tuple[str, str]], answers: Answers) -> None:
        self._owners = owners
        self._answers = answers
        self._facts: dict[str, Any] = {"function": _name(loss_fn), "weighted": _weighted(loss_fn)}
        if isinstance(loss_fn, nn.Module):
            self._facts["reduction"] = getattr(loss_fn, "reduction", None)
        self._outputs: dict[str, Any] = {}
        self._exact = False
        self._rows_sum_to_one = True
        self._activation_of_output = ""
        self._plain = 0
        self._plain_step: int | None = None

    def outputs(self, outputs: Tensor, *, exact: bool = False) -> None:
        """What goes into the loss: ``exact`` when the loss module itself received it."""
        if exact and not self._exact:
            self._exact, self._rows_sum_to_one, self._outputs = True, True, {}
        elif self._exact and not exact:
            return
        if outputs.is_nested or not outputs.dtype.is_floating_point or outputs.numel() == 0:
            return
        values = outputs.detach().float()
        low, high = values.min(), values.max()
        std, mean = torch.std_mean(values) if values.numel() > 1 else (low * 0, low)
        columns = values.shape[1] if values.dim() > 1 else 1
        by_one: Tensor | float = 0.0
        if columns > 1 and self._rows_sum_to_one:
            by_one = (values.sum(1) - 1).abs().max()
        facts = {
            "shape": list(outputs.shape),
            "dtype": str(outputs.dtype).removeprefix("torch."),
            "columns": columns,
        }
        self._answers.ask(partial(self._note, facts, exact), low, high, mean, std, by_one)
        self._activation_of_output = _last_activation(outputs.grad_fn)

    def _note(
        self, facts: dict[str, Any], exact: bool, low: Any, high: Any, mean: Any, std: Any, by: Any
    ) -> None:
        """The range of outputs whose rows' sums are at most ``by`` from 1."""
        low, high = float(low), float(high)
        if self._exact != exact or not (math.isfinite(low) and math.isfinite(high)):
            return
        if facts["columns"] > 1:
            self._rows_sum_to_one &= float(by) < 1e-3 and low >= 0
        self._outputs = {
            **facts,
            "min": min(low, self._outputs.get("min", low)),
            "max": max(high, self._outputs.get("max", high)),
            "mean": float(mean),
            "std": float(std),
        }

    def _note_doubled(self, loss: Tensor, step: int) -> None:
        """What normalises twice, and the steps between which that came, if not at the start."""
        facts, doubled = self._facts, _doubled(loss.grad_fn)
        self._plain = 0 if doubled else self._plain + 1
        if not doubled:
            self._plain_step = step
            if self._plain >= _GONE:
                facts["doubled"], facts["doubled_since"] = "", None
        elif not facts.get("doubled"):
            facts["doubled"] = doubled
            if self._plain_step is not None:
                facts["doubled_since"] = [self._plain_step, step]

    def examine(self, loss: Tensor, step: int = 0) -> tuple[Tensor, Tensor] | None:
        """Reads the loss's graph; gives (outputs, targets) where autograd has saved them."""
        facts = self._facts
        facts["shape"] = list(loss.shape)
        facts["requires_grad"] = loss.requires_grad
        if loss.grad_fn is None:
            return None
        found: dict[str, int] = {}
        pair: tuple[Tensor, Tensor] | None = None
        for node, sign in _signed(loss.grad_fn):
            name = base_name(node)
            if name in LOSSES:
                found[LOSSES[name]] = sign
                facts[f"{LOSSES[name]}_input"] = _chain(node)
                targets, outputs = saved(node, "target"), saved(node, "self")
                if pair is None and targets is not None and outputs is not None:
                    pair = outputs.detach(), targets.detach()
            if name in ("Sub", *LOSSES) and (shape := _broadcast(node)):
                facts["broadcast"] = shape
        facts["losses"] = found
        facts.setdefault("doubled", "")
        self._note_doubled(loss, step)
        return pair

    def document(self) -> dict[str, Any]:
        outputs = dict(self._outputs)
        if outputs:
            outputs["rows_sum_to_one"] = self._rows_sum_to_one and outputs["columns"] > 1
            outputs["activation"] = self._activation_of_output
        return {**self._facts, "outputs": outputs}


def _name(loss_fn: Any) -> str:
    if loss_fn is None:
        return ""
    if isinstance(loss_fn, nn.Module):
        return type(loss_fn).__name__
    return str(getattr(loss_fn, "__name__", type(loss_fn).__name__))


def _weighted(loss_fn: Any) -> bool:
    weights = (getattr(loss_fn, name, None) for name in ("weight", "pos_weight"))
    return any(isinstance(weight, Tensor) for weight in weights)


def _signed(root: Any) -> list[tuple[Any, int]]:
    """The nodes near the loss, each with the sign by which it enters the loss."""
    made: list[tuple[Any, int]] = []
    seen, queue = {root}, deque([(root, 1)])
    while queue and len(made) < _SHORT_LIMIT:
        node, sign = queue.popleft()
        made.append((node, sign))
        name = base_name(node)
        for position, following in enumerate(inputs_of(node)):
            if following is None or following in seen:
                continue
            seen.add(following)
            flips = name in ("Neg", "Rsub") or (name == "Sub" and position == 1)
            if name in ("Mul", "Div"):
                factor = saved(node, "other")
                flips = factor is not None and _is_negative(factor)
            queue.append((following, -sign if flips else sign))
    return made


def _is_negative(factor: Tensor) -> bool:
    """Whether it is a number below 0; one on a device is not waited for."""
    return factor.is_cpu and factor.numel() == 1 and float(factor.detach()) < 0


def _chain(node: Any, length: int = 4) -> list[str]:
    """Names of the operations that made the loss's first input, nearest first."""
    names: list[str] = []
    while len(names) < length:
        following = inputs_of(node)
        node = through(following[0], VIEWS) if following else None
        if node is None:
            break
        names.append(base_name(node))
    return names


def _doubled(root: Any) -> str:
    """``softmax>log_softmax`` where the loss normalises what is normalised already."""
    for node in walk(root, _SHORT_LIMIT):
        outer = _TAKES_LOGITS.get(base_name(node))
        if outer is None:
            continue
        following = inputs_of(node)
        inner = through(following[0], VIEWS) if following else None
        name = _BOUNDED.get(base_name(inner)) if inner is not None else None
        if name is not None and name != "relu":
            return f"{name}>{outer}"
    return ""


def _broadcast(node: Any) -> list[list[int]]:
    """Shape before and after, where outputs (N, 1) met targets (N) and became (N, N)."""
    after = _shape(node) if base_name(node) == "Sub" else None
    source = inputs_of(node)[0] if inputs_of(node) else None
    if source is None:
        return []
    before = _shape(source)
    if base_name(source) == "Expand":
        after, inner = before, inputs_of(source)[0]
        before = _shape(inner) if inner is not None else None
    if not after or not before or len(after) < 2 or after[0] < 2:
        return []
    count_after, count_before = torch.Size(after).numel(), torch.Size(before).numel()
    grown = count_after == count_before * after[0] and after[-1] == after[-2]
    return [before, after] if grown else []


def _shape(node: Any) -> list[int] | None:
    metadata = getattr(node, "_input_metadata", None)
    if not metadata:
        return None
    try:
        return [int(size) for size in metadata[0].shape]
    except (AttributeError, TypeError, RuntimeError):
        return None


def _last_activation(node: Any) -> str:
    last = through(node, VIEWS) if node is not None else None
    return _BOUNDED.get(base_name(last), "") if last is not None else ""
