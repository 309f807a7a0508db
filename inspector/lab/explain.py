"""The common errors of autograd and of shapes, each explained in one sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from inspector.numerals import short

Shapes = Sequence[tuple[int, ...]]

_SENTENCES: tuple[tuple[str, str], ...] = (
    (r"backward through the graph a second time",
     "The first backward pass freed what this graph had saved; write backward(retain_graph=True) "
     "in the earlier pass, or compute the forward pass again."),
    (r"element 0 of tensors does not require grad",
     "Nothing that led to this tensor requires gradients, or it was detached or made under "
     "no_grad(), so there is no graph to go back through."),
    (r"grad can be implicitly created only for scalar outputs",
     "backward() starts from one number; take .sum() or .mean() first, or pass the gradient that "
     "arrives: y.backward(torch.ones_like(y))."),
    (r"a view of a leaf Variable that requires grad is being used in an in-place",
     "A leaf that requires gradients is what the others are differentiated by, so neither it nor "
     "a view of it may be changed in place; do it under torch.no_grad(), or work on a clone()."),
    (r"a leaf Variable that requires grad is being used in an in-place",
     "A leaf that requires gradients is what the others are differentiated by, so it may not be "
     "changed in place; do it under torch.no_grad(), or compute a new tensor."),
    (r"differentiated Tensors?.* appears? to not have been used in the graph",
     "One of the inputs of autograd.grad() has no path to the output; pass allow_unused=True to "
     "get None for it."),
    (r"Can't call numpy\(\) on Tensor that requires grad",
     "NumPy would change the numbers behind autograd's back; say .detach().numpy()."),
    (r"Only Tensors of floating point and complex dtype can require gradients",
     "Whole numbers cannot move by a little, so they have no derivative; write 3.0 instead of 3."),
    (r"view size is not compatible with input tensor's size and stride",
     "view() never copies, and in this order of elements the new shape cannot be had without a "
     "copy; use reshape(), or contiguous() first."),
    (r"shape '\[(?P<wanted>[^\]]*)\]' is invalid for input of size (?P<got>\d+)",
     "The new shape must hold exactly as many elements as there are: {got}."),
    (r"(same dtype|expected scalar type|must have the same dtype)",
     "The tensors have different number types; bring them to one with .to(dtype) or .float()."),
    (r"can't allocate memory: you tried to allocate (?P<bytes>\d+) bytes",
     "The snippet asked for {bytes:size}, more than the lab's memory limit leaves."),
    (r"(?P<axis>\d+) is out of bounds for dimension (?P<dim>\d+) with size (?P<size>\d+)",
     "Indices of dimension {dim} go from 0 to its size minus one; its size is {size}."),
    (r"too many indices for tensor",
     "There are more indices than the tensor has dimensions."),
    (r"Boolean value of Tensor with more than one value is ambiguous",
     "An if needs one truth value: reduce the comparison with .any() or .all(), or choose element "
     "by element with torch.where()."),
    (r"returned an incorrect number of gradients \(expected (?P<want>\d+), got (?P<got>\d+)\)",
     "backward() of a custom Function returns one gradient for each argument of forward(): "
     "{want} here, None for those that need none."),
    (r"returned an invalid gradient at index (?P<index>\d+)",
     "The gradient of an input must have that input's shape; after broadcasting, sum it over the "
     "dimensions that were added or stretched."),
    (r"Jacobian mismatch",
     "The derivative that backward() computes differs from finite differences: look at the two "
     "matrices, numerical and analytical, in the message."),
    (r"einsum\(\).*does not broadcast",
     "A letter of einsum stands for one length; here it meets two different ones."),
    (r"derivative for .* is not implemented",
     "PyTorch has no derivative for this operation; express it with others, or write a custom "
     "autograd.Function."),
    (r"Found no NVIDIA driver|No CUDA GPUs|not compiled with CUDA|CUDA-capable device",
     "Snippets of the lab run on the CPU only, so that they never disturb a training run."),
    (r"EOF when reading a line",
     "Nobody can type into a snippet that runs; write the value into the code."),
    (r"name '(torch|nn|np|F)' is not defined",
     "The snippet starts from nothing: import what it uses first."),
)  # fmt: skip

_INPLACE = re.compile(
    r"modified by an inplace operation.*?(?:output \d+ of (?P<op>\w+), )?"
    r"is at version (?P<now>\d+); expected version (?P<then>\d+)",
    re.DOTALL,
)


def explain(
    kind: str, message: str, shapes: Shapes, line_of: Callable[[str], int]
) -> tuple[str, str]:
    """One sentence, and the shapes aligned where they are the point; "" where nothing is known.

    Args:
        shapes: of the tensors in the call that raised.
        line_of: line of the snippet that created a node such as ``Exp``; 0 if unknown.
    """
    if kind == "RecursionError":
        return "A function calls itself without end; give it a case that returns.", ""
    if kind == "MemoryError":
        return "The snippet asked for more than the lab's memory limit leaves.", ""
    if found := _INPLACE.search(message):
        return _inplace(found["op"], found["now"], found["then"], line_of), ""
    if found := re.search(r"Function '(\w+)' returned nan values", message):
        return _not_a_number(found[1], line_of), ""
    if found := re.search(r"size of tensor a \((\d+)\) must match .* b \((\d+)\)", message):
        return _broadcast(found[1], found[2]), aligned(shapes)
    if found := re.search(r"shapes cannot be multiplied \((\d+)x(\d+) and (\d+)x(\d+)\)", message):
        sentence = (
            f"In a matrix product the columns of the first ({found[2]}) meet the rows of the "
            f"second ({found[3]}), and these must be equal; transpose one, or change a size."
        )
        return sentence, _product(shapes)
    for pattern, sentence in _SENTENCES:
        if found := re.search(pattern, message):
            parts = {k: _Size(v) if k == "bytes" else v for k, v in found.groupdict().items()}
            return sentence.format(**parts), ""
    return "", ""


def aligned(shapes: Shapes) -> str:
    """Shapes one under the other, last dimensions together, with a mark below those that clash."""
    operands = [shape for shape in shapes if shape]
    if len(operands) < 2:
        return ""
    rank = max(map(len, operands))
    columns = [
        [shape[at - rank] if at - rank >= -len(shape) else None for shape in operands]
        for at in range(rank)
    ]
    rows = [
        ["" if size is None else str(size) for size in row] for row in zip(*columns, strict=True)
    ]
    marks = ["↑" if len({size for size in column if size not in (None, 1)}) > 1 else ""
             for column in columns]  # fmt: skip
    widths = [max(len(text) for text in column) for column in zip(*rows, strict=True)]
    lines = [
        f"{chr(ord('a') + number)}:  " + _joined(row, widths) for number, row in enumerate(rows)
    ]
    if any(marks):
        lines.append("    " + _joined(marks, widths, gap="   ") + "  these clash")
    return "\n".join(lines)


def _joined(cells: Sequence[str], widths: Sequence[int], gap: str = " × ") -> str:
    text = ""
    for number, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        before = number > 0 and cells[number - 1]
        text += (gap if before else "   ") if number else ""
        text += cell.rjust(width)
    return text.rstrip()


def _product(shapes: Shapes) -> str:
    matrices = [shape for shape in shapes if len(shape) >= 2][-2:]
    if len(matrices) < 2:
        return ""
    first, second = (" × ".join(map(str, shape)) for shape in matrices)
    gap = len(first) - len(str(matrices[0][-1]))
    under = " " * gap + "↑"
    offset = (
        len(first) + 5 + len(" × ".join(map(str, matrices[1][:-2]))) + 3 * (len(matrices[1]) > 2)
    )
    return f"{first}  @  {second}\n{under.ljust(offset)}↑  these must be equal"


def _broadcast(a: str, b: str) -> str:
    return (
        "Shapes are compared from the last dimension on, and two sizes go together when they are "
        f"equal or one of them is 1; here {a} meets {b}."
    )


def _inplace(op: str | None, now: str, then: str, line_of: Callable[[str], int]) -> str:
    line = line_of(op) if op else 0
    who = (
        f"the result of {op.removesuffix('Backward0').lower()}"
        if op
        else "a tensor that the backward pass needs"
    )
    where = f" (line {line})" if line else ""
    return (
        f"The backward pass needs {who}{where} as it was at version {then}, but it was changed in "
        f"place since (version {now}); compute a new tensor instead, or change a clone()."
    )


def _not_a_number(op: str, line_of: Callable[[str], int]) -> str:
    line = line_of(op)
    where = f" in line {line}" if line else ""
    return (
        f"Anomaly detection stopped where the first NaN appeared: in the backward of "
        f"{op.removesuffix('Backward0').lower()}{where}; look at the value it was given there."
    )


class _Size:
    """Bytes, written for people wherever a sentence says ``{bytes:size}``."""

    def __init__(self, text: Any) -> None:
        self._bytes = int(text)

    def __format__(self, _: str) -> str:
        value = float(self._bytes)
        for unit in ("bytes", "KiB", "MiB", "GiB"):
            if value < 1024:
                return f"{short(value, 3)} {unit}"
            value /= 1024
        return f"{short(value, 3)} TiB"
