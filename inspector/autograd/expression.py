"""Evaluates a small expression and records its backward pass; meant for the lab's child process."""

from __future__ import annotations

import ast
import builtins
from typing import Any

import torch
from torch import Tensor, nn

from inspector.autograd.calls import Calls
from inspector.autograd.owners import GraphTags
from inspector.autograd.replay import BackwardRecording
from inspector.errors import InspectorError

FILE = "<expression>"
_FUNCTIONS = (
    "sin", "cos", "tan", "exp", "log", "log1p", "sqrt", "rsqrt", "tanh", "sigmoid", "relu",
    "softmax", "log_softmax", "abs", "sign", "maximum", "minimum", "where", "matmul", "einsum",
    "outer", "dot", "norm", "sum", "mean", "stack", "cat", "tensor", "ones", "zeros", "randn",
    "linspace", "arange", "eye", "clamp",
)  # fmt: skip


def record_expression(text: str, inputs: str) -> dict[str, Any]:
    """The document of kind ``backward`` for an expression.

    Args:
        text: one expression, or a few assignments before one, parted by ``;`` or line breaks.
        inputs: ``x = 1, y = [2, 3]``: numbers, lists or expressions, each a float64 leaf that
            requires gradients.

    Raises:
        InspectorError: the text is no such expression; the sentence says what was expected.
        Exception: what PyTorch raises while it computes.
    """
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    space = _space()
    leaves = {name: _leaf(name, value, space) for name, value in _inputs(inputs)}
    space |= leaves
    *statements, last = _statements(text)
    holder = nn.Module()
    calls = Calls()
    with GraphTags(holder) as tags, calls:
        for statement in statements:
            exec(_compiled(ast.Module([statement], []), "exec"), space)
        result = eval(_compiled(ast.Expression(last), "eval"), space)
        if not isinstance(result, Tensor) or result.grad_fn is None:
            raise InspectorError(
                "Expected an expression that computes a tensor from the inputs, but "
                f"{text.strip()!r} gives {_short(result)}; use the names of the inputs in it."
            )
        whole = result.sum() if result.numel() != 1 else result
    names = {
        value.grad_fn: name
        for name, value in space.items()
        if isinstance(value, Tensor) and value.grad_fn is not None
    }
    recording = BackwardRecording(
        whole, _Leaves(leaves), step=0, tags=tags, calls=calls, names=names, check_seconds=3.0
    )
    torch.autograd.backward(whole, torch.ones_like(whole))
    document = recording.finish()
    if whole is not result:
        document["notes"].append(
            f"The result has {result.numel():,} numbers: backward starts from their sum."
        )
    return document | {"expression": text, "inputs": inputs, "model": ""}


class _Leaves(nn.Module):
    """The inputs as if they were a model's parameters, so that leaves have names."""

    def __init__(self, leaves: dict[str, Tensor]) -> None:
        super().__init__()
        self._leaves = leaves

    def named_parameters(self, *_: Any, **__: Any) -> Any:
        yield from self._leaves.items()

    def parameters(self, recurse: bool = True) -> Any:  # noqa: ARG002
        yield from self._leaves.values()


def _space() -> dict[str, Any]:
    functions = {name: getattr(torch, name) for name in _FUNCTIONS}
    return functions | {
        "torch": torch, "F": torch.nn.functional, "pi": torch.pi, "nan": float("nan"),
        "inf": float("inf"), "__builtins__": builtins,
    }  # fmt: skip


def _inputs(text: str) -> list[tuple[str, ast.expr]]:
    try:
        made = ast.parse(f"dict({text})", mode="eval").body
        assert isinstance(made, ast.Call)
    except (SyntaxError, ValueError, AssertionError):
        made = None
    if made is None or made.args or any(item.arg is None for item in made.keywords):
        raise InspectorError(f"Expected inputs such as 'x = 1, y = [2, 3]', but got {text!r}.")
    if not made.keywords:
        raise InspectorError("Expected at least one input, such as 'x = 1', but got none.")
    return [(str(item.arg), item.value) for item in made.keywords]


def _leaf(name: str, node: ast.expr, space: dict[str, Any]) -> Tensor:
    value = eval(_compiled(ast.Expression(node), "eval"), space)
    try:
        tensor = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InspectorError(
            f"Expected numbers for the input {name}, but got {_short(value)}."
        ) from error
    return tensor.detach().clone().requires_grad_()


def _statements(text: str) -> list[Any]:
    """The statements, the last as an expression."""
    try:
        body: list[Any] = list(ast.parse(text.strip(), FILE).body)
    except SyntaxError as error:
        raise InspectorError(
            f"Expected a Python expression such as (x + y)**2, but {text!r} has a mistake: "
            f"{error.msg}."
        ) from error
    if not body:
        raise InspectorError("Expected an expression such as (x + y)**2, but got nothing.")
    last = body[-1]
    if isinstance(last, ast.Assign) and isinstance(last.targets[0], ast.Name):
        body.append(ast.Name(last.targets[0].id, ast.Load()))
        ast.copy_location(body[-1], last)
    elif isinstance(last, ast.Expr):
        body[-1] = last.value
    else:
        raise InspectorError(
            f"Expected the last line of {text!r} to be an expression or an assignment."
        )
    return body


def _compiled(tree: Any, mode: str) -> Any:
    return compile(ast.fix_missing_locations(tree), FILE, mode)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
