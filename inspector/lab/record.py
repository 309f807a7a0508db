"""Runs one snippet in this process and records what it built; only the lab's child calls it."""

from __future__ import annotations

import linecache
import sys
import time
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from inspector.autograd.values import ValueTags, plain
from inspector.lab import plots
from inspector.lab.backward import Backwards
from inspector.lab.explain import explain
from inspector.lab.report import Report, SnippetError, TensorRecord

FILE = "<snippet>"
MOST_TENSORS = 40
MOST_ITEMS = 200  # of a list among the values
MOST_TEXT = 500


def run(snippet: str, lift_limits: Callable[[], object] = lambda: None) -> Report:
    """Runs a snippet as ``__main__`` and describes what it left behind.

    Args:
        lift_limits: called when the snippet is over, so that recording has memory to work with.
    """
    try:
        code = compile(snippet, FILE, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as refused:
        line = getattr(refused, "lineno", None) or 0
        message = getattr(refused, "msg", None) or str(refused)
        return Report(error=SnippetError(kind=type(refused).__name__, message=message, line=line))
    lines = snippet.splitlines(keepends=True)
    linecache.cache[FILE] = (len(snippet), None, lines, FILE)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    torch.manual_seed(0)  # a lesson that is run twice shows the same numbers
    np.random.seed(0)
    values = ValueTags()
    backwards = Backwards(FILE, module.__dict__)
    stopped = ""
    failure: BaseException | None = None
    start = time.perf_counter()
    try:
        with backwards, values:
            exec(code, module.__dict__)
    except SystemExit as leaving:
        stopped = f"The snippet called sys.exit({leaving.code}), so the rest of it did not run."
    except BaseException as raised:
        failure = raised
    seconds = time.perf_counter() - start
    lift_limits()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backwards.add_last_tensor()
        failed = None if failure is None else _error(failure, values, backwards)
        tensors = _tensors(module.__dict__)
        return Report(
            stopped=stopped,
            error=failed,
            values=_values(module.__dict__),
            tensors=tuple(tensors[:MOST_TENSORS]),
            graphs=tuple(backwards.graphs),
            plots=tuple(plots.take()),
            notes=tuple(backwards.notes + _left_out(tensors)),
            seconds=seconds,
        )


def _left_out(tensors: list[TensorRecord]) -> list[str]:
    if len(tensors) <= MOST_TENSORS:
        return []
    return [f"Of {len(tensors)} tensors the first {MOST_TENSORS} are listed."]


def _error(error: BaseException, values: ValueTags, backwards: Backwards) -> SnippetError:
    kind, message = type(error).__name__, str(error)
    _, shapes = values.failure or ("", ())
    explanation, shown = explain(kind, message, shapes, backwards.line_of)
    return SnippetError(
        kind=kind, message=message[:4000], line=_line(error), explanation=explanation, shapes=shown
    )


def _line(error: BaseException) -> int:
    """The innermost line of the snippet in the traceback."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _tensors(names: dict[str, Any]) -> list[TensorRecord]:
    records = []
    for name, value in _visible(names):
        if isinstance(value, torch.Tensor):
            records.append(_tensor(name, value))
        elif isinstance(value, nn.Module):
            records += [_tensor(f"{name}.{path}", p) for path, p in value.named_parameters()]
        elif isinstance(value, (list, tuple)):
            records += [
                _tensor(f"{name}[{number}]", item)
                for number, item in enumerate(value[:MOST_TENSORS])
                if isinstance(item, torch.Tensor) and item.requires_grad
            ]
    return records


def _tensor(name: str, tensor: torch.Tensor) -> TensorRecord:
    gradient = tensor.grad if tensor.is_leaf or tensor.retains_grad else None
    return TensorRecord(
        name=name,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        requires_grad=tensor.requires_grad,
        leaf=tensor.is_leaf,
        grad_fn="" if tensor.grad_fn is None else tensor.grad_fn.name().rpartition("::")[2],
        version=tensor._version,
        value=plain(tensor),
        gradient=plain(gradient),
        statistics=statistics(tensor),
        gradient_statistics="" if gradient is None else statistics(gradient),
    )


def statistics(tensor: torch.Tensor) -> str:
    """Smallest, mean and largest value in words."""
    if not tensor.numel() or tensor.is_complex() or tensor.layout is not torch.strided:
        return ""
    flat = tensor.detach().double()
    bad = int((~flat.isfinite()).sum())
    text = f"{flat.min():.3g} … {flat.max():.3g}, mean {flat.mean():.3g}"
    return f"{text}, {bad} not finite" if bad else text


def _values(names: dict[str, Any]) -> dict[str, Any]:
    found = {name: _value(value) for name, value in _visible(names)}
    return {name: value for name, value in found.items() if value is not None}


def _value(value: Any) -> Any:
    """Something JSON can say, or None for what is not a plain result."""
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return value[:MOST_TEXT]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "bif" and value.size <= MOST_ITEMS:
        return value.tolist()
    if isinstance(value, dict) and len(value) <= MOST_ITEMS:
        named = {str(key): _value(item) for key, item in value.items()}
        return named if named and None not in named.values() else None
    if isinstance(value, (list, tuple)) and 0 < len(value) <= MOST_ITEMS:
        items = [plain(v) if isinstance(v, torch.Tensor) else _value(v) for v in value]
        return items if None not in items else None
    return None


def _visible(names: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in names.items() if not name.startswith("_")]
