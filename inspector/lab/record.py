"""Runs one snippet in this process and records what it built; only the lab's child calls it."""

from __future__ import annotations

import linecache
import sys
import time
import types
import warnings
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np
import torch
from torch import nn

from inspector.autograd.values import ValueTags, plain
from inspector.lab import plots
from inspector.lab.backward import Backwards
from inspector.lab.explain import explain
from inspector.lab.report import Report, SnippetError, TensorRecord
from inspector.numerals import short

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
    module.__file__ = FILE
    sys.modules["__main__"] = module
    warnings.showwarning = _show_warning
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
        notes: list[str] = []
        tensors = _tensors(module.__dict__, notes)
        return Report(
            stopped=stopped,
            error=failed,
            values=_values(module.__dict__, notes),
            tensors=tuple(tensors[:MOST_TENSORS]),
            graphs=tuple(backwards.graphs),
            plots=tuple(plots.take()),
            notes=tuple(backwards.notes + notes + _left_out(tensors)),
            seconds=seconds,
        )


def _left_out(tensors: list[TensorRecord]) -> list[str]:
    if len(tensors) <= MOST_TENSORS:
        return []
    return [f"Of {len(tensors)} tensors the first {MOST_TENSORS} are listed."]


def _error(error: BaseException, values: ValueTags, backwards: Backwards) -> SnippetError:
    kind = type(error).__name__
    try:
        message = str(error)
    except Exception:
        message = "(the exception cannot be put into words)"
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


def _tensors(names: dict[str, Any], notes: list[str]) -> list[TensorRecord]:
    records = []
    for name, value in _visible(names):
        try:
            records += [_tensor(path, tensor) for path, tensor in _inside(name, value)]
        except Exception as error:  # tensors of all kinds come here; one that refuses is left out
            notes.append(f"{name} cannot be described ({type(error).__name__}).")
    return records


def _inside(name: str, value: Any) -> list[tuple[str, torch.Tensor]]:
    """The tensors that a name stands for."""
    if isinstance(value, torch.Tensor):
        return [(name, value)]
    if isinstance(value, nn.Module):
        return [(f"{name}.{path}", tensor) for path, tensor in value.named_parameters()]
    if isinstance(value, (list, tuple)):
        return [
            (f"{name}[{number}]", item)
            for number, item in enumerate(value[:MOST_TENSORS])
            if isinstance(item, torch.Tensor) and item.requires_grad
        ]
    return []


def _tensor(name: str, tensor: torch.Tensor) -> TensorRecord:
    gradient = tensor.grad if tensor.is_leaf or tensor.retains_grad else None
    return TensorRecord(
        name=name,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        requires_grad=tensor.requires_grad,
        leaf=tensor.is_leaf,
        grad_fn="" if tensor.grad_fn is None else tensor.grad_fn.name().rpartition("::")[2],
        version=0 if tensor.is_inference() else tensor._version,
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
    low, high, mean = (short(float(of()), 3) for of in (flat.min, flat.max, flat.mean))
    text = f"{low} … {high}, mean {mean}"
    return f"{text}, {bad} not finite" if bad else text


def _values(names: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    found = {}
    for name, value in _visible(names):
        try:
            plain_value = _value(value)
        except Exception as error:  # such as a list that contains itself
            notes.append(f"{name} cannot be described ({type(error).__name__}).")
            continue
        if plain_value is not None:
            found[name] = plain_value
    return found


def _value(value: Any) -> Any:
    """Something JSON can say, or None for what is not a plain result."""
    if isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else None
    if isinstance(value, str):
        return str(value)[:MOST_TEXT]
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


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,  # noqa: ARG001
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    """Prints a warning with the line of the snippet that led to it."""
    if filename != FILE and issubclass(category, FutureWarning):
        return  # addressed to the authors of a library
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename != FILE:
        frame = frame.f_back
    where = f"line {frame.f_lineno}: " if frame.f_code.co_filename == FILE else ""
    sys.stderr.write(f"{where}{category.__name__}: {message}\n")
