"""What a model is called with: an example for the exporters, and which of its axes may vary."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from inspector.errors import ExportError
from inspector.training.own.reference import describe
from inspector.training.step import Supervised
from inspector.training.task import Task

BATCH, WIDTH = "batch", "width"


@dataclass(frozen=True, slots=True)
class Inputs:
    """The arguments of one call of a model, with detached tensors on the CPU.

    Attributes:
        axes: for each tensor among the arguments, in their order, the names of the axes that may
            have another length: ``batch``, and ``width`` (the length of strips and sequences that
            are padded to one another).
        notes: sentences about what could not be left free.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    axes: tuple[dict[int, str], ...]
    notes: tuple[str, ...] = ()

    @property
    def tensors(self) -> list[Tensor]:
        return _tensors((self.args, self.kwargs))

    def length(self, name: str) -> int:
        """Of an axis; 0 where no tensor has one of that name."""
        pairs = zip(self.tensors, self.axes, strict=True)
        return next((t.shape[a] for t, of in pairs for a, n in of.items() if n == name), 0)

    def part(self, **lengths: int) -> Inputs:
        """The last samples in the opposite order, and the beginning of each."""
        axes = iter(self.axes)

        def cut(tensor: Tensor) -> Tensor:
            for axis, name in next(axes).items():
                tensor = tensor.flip(axis) if name == BATCH else tensor
                tensor = tensor.narrow(axis, 0, lengths.get(name, tensor.shape[axis]))
            return tensor

        args, kwargs = tree_map_only(Tensor, cut, (self.args, self.kwargs))
        return dataclasses.replace(self, args=args, kwargs=kwargs)

    def fixed(self, name: str, note: str) -> Inputs:
        """The same with an axis whose length stays as it is."""
        axes = tuple({a: n for a, n in of.items() if n != name} for of in self.axes)
        return dataclasses.replace(self, axes=axes, notes=(*self.notes, note))

    def into(self, model: Callable[..., Any]) -> Any:
        """What a model gives, without gradients."""
        with torch.no_grad():
            return model(*self.args, **self.kwargs)

    def shapes(self, model: nn.Module) -> Any:
        """Which axes vary, as ``torch.export`` wants to be told it."""
        dims = {name: torch.export.Dim(name) for of in self.axes for name in of.values()}
        shapes: Any = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
        for tensor, of in zip(self.tensors, self.axes, strict=True):
            shapes[tensor] = {axis: dims[name] for axis, name in of.items()}
        return shapes.dynamic_shapes(model, self.args, self.kwargs)

    def named(self, model: nn.Module) -> dict[str, Any]:
        """All arguments by the names of forward's parameters; TypeError where it has none."""
        return dict(inspect.signature(model.forward).bind(*self.args, **self.kwargs).arguments)


def inputs_of(task: Task, batch: Any, run: str) -> Inputs:
    """What the task's step calls the model with, for a batch.

    Raises:
        ExportError: the step does not call the model, or without any tensor.
    """
    supervised = isinstance(task.step, Supervised)
    called = ((batch[0],), {}) if supervised else _called_with(task, batch, run)
    args, kwargs = tree_map(_plain, called)
    tensors = _tensors((args, kwargs))
    count = next((len(tensor) for tensor in tensors if tensor.ndim), 0)
    axes = [{0: BATCH} if t.ndim and len(t) == count else {} for t in tensors]
    if task.kind == "transcription":
        axes[0][3 if tensors[0].ndim == 4 else 1] = WIDTH
    inputs = Inputs(args, kwargs, tuple(axes))
    return inputs if supervised else _divisible(task.model, inputs)


def _called_with(task: Task, batch: Any, run: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of the first call of the model in a step of the user's own."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    handle = task.model.register_forward_pre_hook(
        lambda _module, args, kwargs: seen.append((args, kwargs)), with_kwargs=True
    )
    instead = "export state_dict or safetensors instead."
    try:
        with torch.enable_grad():  # such a step may differentiate
            task.validation_step.judge(task.model, batch)
    except Exception as error:  # out of the user's own code
        raise ExportError(
            f"The step of run {run} cannot be repeated to see what it calls the model with: "
            f"{describe(error)}; {instead}"
        ) from error
    finally:
        handle.remove()
    if not seen or not _tensors(seen[0]):
        raise ExportError(
            f"Expected the training_step of run {run} to call the model with tensors, but it "
            f"{'gives it none' if seen else 'calls parts of it only'}; {instead}"
        )
    return seen[0]


def _divisible(model: nn.Module, inputs: Inputs) -> Inputs:
    """With a fixed batch where the model does not take fewer samples, as of one graph."""
    try:
        inputs.part(batch=inputs.length(BATCH) - 1).into(model)
    except Exception:  # out of the user's own code
        return inputs.fixed(
            BATCH,
            "All sizes are fixed: the model does not take a part of what the step calls it with.",
        )
    return inputs


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _plain(leaf: Any) -> Any:
    """A tensor of its own for each place, since axes are told by identity."""
    return leaf.detach().cpu().clone() if isinstance(leaf, Tensor) else leaf
