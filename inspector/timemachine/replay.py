"""Runs one step again on a copy of the model, looking at every operation."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inspector.autograd.owners import GraphTags, tagged_owner
from inspector.capture.activations import tensors_in
from inspector.capture.parameters import plain
from inspector.events import Origin
from inspector.timemachine.births import Births, Operation, describe
from inspector.timemachine.calls import OUTPUT, Call
from inspector.timemachine.checks import count_nonfinite
from inspector.timemachine.places import Place, is_users, place_of
from inspector.timemachine.state import random_state, set_random_state

LOSS = "(loss)"
GIVEN = "given"
"""Phase of what was in the input of a part already, and was not in the batch."""
_NOT_BY_SAMPLE = ("mm", "addmm", "bmm", "sum", "convolution_backward", "embedding_dense_backward")
_SAMPLES = 32


@dataclass(slots=True)
class Twin:
    """A copy of model and loss that can be run without touching the training."""

    model: nn.Module
    loss_fn: Any
    paths: dict[int, str]
    names: dict[int, str]


def twin_of(model: nn.Module, loss_fn: Any, buffers: dict[str, Tensor]) -> Twin:
    """Copies model and loss; ``buffers`` are put where the forward pass has changed them.

    Raises:
        Exception: whatever copying the model raises.
    """
    inner = eager(model)
    made, loss = copy.deepcopy((inner, loss_fn))
    with torch.no_grad():
        for name, tensor in made.named_buffers():
            if name in buffers and buffers[name].shape == tensor.shape:
                tensor.copy_(buffers[name])
    paths = {id(module): plain(path) for path, module in made.named_modules()}
    if isinstance(loss, nn.Module):
        paths |= {id(module): LOSS for module in loss.modules() if id(module) not in paths}
    names = {_key(p): f"parameter {plain(name)}" for name, p in made.named_parameters()}
    names |= {_key(b): f"buffer {plain(name)}" for name, b in made.named_buffers()}
    return Twin(made, loss, paths, names)


def eager(model: nn.Module) -> nn.Module:
    """The module inside compiling and data-parallel wrappers: it runs here, alone, in Python."""
    while True:
        inner = vars(model).get("_modules", {}).get("_orig_mod")
        if inner is None and isinstance(
            model, (nn.DataParallel, nn.parallel.DistributedDataParallel)
        ):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


class Replay:
    """One replay; :meth:`run` leaves model, gradients and random numbers as they were."""

    def __init__(self, model: nn.Module, loss_fn: Any, buffers: dict[str, Tensor]) -> None:
        self._twin = twin_of(model, loss_fn, buffers)
        self._types = {p: type(m).__name__ for p, m in _named(self._twin)}
        self._births = Births(self._where, self._leaf)
        self._tags: GraphTags | None = None

    def take_state(self, model: nn.Module) -> None:
        """Runs with the parameters and buffers of another copy of the model."""
        self._twin.model.load_state_dict(model.state_dict())

    def run(self, call: Call) -> Origin | None:
        """Where the first bad value was born; None when nothing bad appears this time."""
        started = time.perf_counter()
        twin = self._twin
        inputs = [(t, "input") for t in tensors_in((call.args, call.kwargs))]
        for tensor in call.made if call.path else ():
            twin.names[_key(tensor)] = f"what {call.path} was given"
        inputs += [(t, "targets") for t in tensors_in((call.loss_args or (), call.loss_kwargs))]
        for tensor, name in inputs:
            twin.names.setdefault(_key(tensor), f"the batch's {name}")
        if call.gradient is not None:
            twin.names.setdefault(_key(call.gradient), "the loss")
        with self._surroundings(call):
            sinks = self._forward_and_backward(call)
        found, chain = self._births.origin(sinks)
        if found is None:
            return None
        return self._origin(found, chain, call, time.perf_counter() - started)

    def end_of(self, call: Call) -> Any:
        """The last autograd node of the model, called in the same way; None if there is none."""
        with self._surroundings(call):
            output = self._twin.model.get_submodule(call.path)(*call.args, **call.kwargs)
        return next((t.grad_fn for t in tensors_in(output) if t.grad_fn is not None), None)

    def _forward_and_backward(self, call: Call) -> list[Tensor]:
        """The bad tensors that matter: outputs or loss, else gradients."""
        twin = self._twin
        with self._births:
            args, kwargs, made = _with_gradients(call)
            output = twin.model.get_submodule(call.path)(*args, **kwargs)
            results = list(tensors_in(output))
            if call.loss_args is not None:
                given = tuple(output if a is OUTPUT else a for a in call.loss_args)
                named = {k: output if v is OUTPUT else v for k, v in call.loss_kwargs.items()}
                losses = list(tensors_in(twin.loss_fn(*given, **named)))
            else:
                losses = results
            bad = [tensor for tensor in losses if count_nonfinite(tensor)]
            if bad:
                return bad
            if call.gradient is not None and not call.complete:
                torch.autograd.backward(results[:1], [call.gradient])
            elif call.loss_args is not None:
                torch.autograd.backward([t for t in losses if t.requires_grad])
        leaves: list[Tensor] = [*twin.model.parameters(), *made]
        gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
        return [gradient for gradient in gradients if count_nonfinite(gradient)]

    @contextlib.contextmanager
    def _surroundings(self, call: Call) -> Iterator[None]:
        """The random numbers of then, autocast as then, tags on autograd nodes, anomaly mode."""
        random = random_state()
        anomaly = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
        cast: Any = contextlib.nullcontext()
        if call.autocast is not None:
            cast = torch.autocast(call.autocast[0], dtype=call.autocast[1])
        try:
            if call.random:
                set_random_state(call.random)
            # It keeps the lines of the forward calls; births are found without its own check.
            torch.autograd.set_detect_anomaly(True, check_nan=False)
            with (
                warnings.catch_warnings(),
                torch.enable_grad(),
                cast,
                GraphTags(self._twin.model) as tags,
            ):
                warnings.simplefilter("ignore")
                self._tags = tags
                yield
        finally:
            torch.autograd.set_detect_anomaly(*anomaly)
            set_random_state(random)

    # ------------------------------------------------------------ called by Births

    def _where(self, frame: Any) -> tuple[Place, str]:
        node = _running_node()
        if node is None:
            return place_of(frame, self._twin.paths, __file__), ""
        owner = tagged_owner(node) or (self._tags.owner(node) if self._tags else None)
        if owner is None:
            return Place(), node.name()
        known = is_users(owner.file) or "site-packages" in owner.file
        module = None if owner.module is None else plain(owner.module)
        place = Place(module, *((owner.file, owner.line) if known else ("", 0)))
        return place, node.name()

    def _leaf(self, tensor: Tensor) -> str:
        return self._twin.names.get(_key(tensor), "")

    # ------------------------------------------------------------ the answer

    def _origin(
        self,
        found: Operation,
        chain: Sequence[Operation],
        call: Call,
        seconds: float,
    ) -> Origin:
        place = found.place
        if found.leaf.startswith("parameter "):
            owner = found.leaf.removeprefix("parameter ").rpartition(".")[0]
            place = dataclasses.replace(place, module=owner)
        if found.leaf:
            phase = "data" if found.leaf.startswith("the batch") else "parameters"
            phase = GIVEN if found.leaf.startswith("what ") else phase
            phase = "loss" if found.leaf == "the loss" else phase
        else:
            phase = "backward" if found.node else "forward"
        in_loss = place.module == LOSS or (place.module is None and not found.leaf)
        rows = found.inputs
        if found.leaf and found.output is not None:
            rows = [describe(found.leaf, found.output)]
        names = [operation.node or operation.name for operation in chain if not operation.leaf]
        return Origin(
            phase=phase,
            op=found.node or found.name or found.leaf,
            kernel=found.name if found.node else "",
            module=None if in_loss else place.module,
            module_type=type(self._twin.loss_fn).__name__
            if in_loss and place.module == LOSS
            else self._types.get(place.module or "", ""),
            in_loss=place.module == LOSS,
            file=place.file,
            line=place.line,
            code=place.code,
            value="NaN" if found.nan else "infinity",
            tensors=rows,
            samples=_samples(found, call.batch),
            batch=call.batch,
            chain=list(dict.fromkeys(names))[:12],
            how="replayed" if call.complete else "replayed without the loss",
            seconds=round(seconds, 4),
        )


def _with_gradients(call: Call) -> tuple[tuple[Any, ...], dict[str, Any], list[Tensor]]:
    """Arguments as they were, and the leaves that stand for what other parts had made of them.

    A bad gradient may go there alone, past all parameters.
    """
    if not call.path or not call.made:
        return call.args, call.kwargs, []
    leaves = {id(tensor): tensor.detach().requires_grad_() for tensor in call.made}

    def put(value: Any) -> Any:
        leaf = leaves.get(id(value))
        return value if leaf is None else leaf.clone()  # which may be changed in place

    args, kwargs = torch.utils._pytree.tree_map(put, (call.args, call.kwargs))
    return args, kwargs, list(leaves.values())


def _samples(found: Operation, batch: int) -> list[int]:
    """Which samples of the batch hold bad values, where the result is laid out by samples."""
    output = found.output
    if output is None or batch < 1 or not output.dim() or output.layout is not torch.strided:
        return []
    if found.node and found.name in _NOT_BY_SAMPLE:
        return []
    if output.shape[0] % batch or output.shape[0] == 0 or found.leaf.startswith("param"):
        return []
    by_row = ~torch.isfinite(output.detach()).reshape(batch, -1).all(dim=1)
    return [int(i) for i in by_row.nonzero().flatten()[:_SAMPLES]]


def _running_node() -> Any:
    current = getattr(torch._C, "_current_autograd_node", None)
    return None if current is None else current()


def _named(twin: Twin) -> list[tuple[str, nn.Module]]:
    return [(plain(path), module) for path, module in twin.model.named_modules()]


def _key(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return id(tensor)
