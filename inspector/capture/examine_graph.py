"""What the autograd graph of the model's output tells: which operation feeds which.

It is walked inside the forward hook, while the values that autograd saved for the backward pass
are still there. So functional calls (``F.relu``) are seen as well as modules.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from inspector.capture.answers import Answers
from inspector.capture.examine_changes import Form, Forms
from inspector.capture.examine_units import (
    ThroughTime,
    UnitCall,
    Units,
    active_units,
    shares,
    units_of,
)

_LIMIT = 3000  # nodes; beyond this only the part near the output is known
VIEWS = {
    "View", "UnsafeView", "ReshapeAlias", "Reshape", "Transpose", "Permute", "T", "Squeeze",
    "Unsqueeze", "Clone", "ToCopy", "Alias", "AsStrided", "Slice", "Select",
}  # fmt: skip
_POOLS = {"MaxPool2DWithIndices", "AvgPool2D", "MaxPool1D"}
_NORMS = {"NativeBatchNorm", "CudnnBatchNorm"}
_NORMALISED = (*_NORMS, "NativeLayerNorm", "NativeGroupNorm")
_DROPOUTS = {"NativeDropout", "FusedDropout", "Mul"}
_ACTIVATIONS = {"Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid"}
_BENDS = {
    "Relu", "Tanh", "Sigmoid", "Gelu", "Silu", "Elu", "LeakyRelu", "Softplus", "Hardtanh", "Mish",
    "Hardswish", "Hardsigmoid", "PreluKernel", "Celu",
}  # fmt: skip
_MOST_PAIRS = 50
_RECURRENT = 8  # calls from which on a module counts as recurrent
_INPUT_OF = {"Addmm": 1, "Mm": 0, "Convolution": 0, "ConvolutionOverrideable": 0, "Linear": 0}


def base_name(node: Any) -> str:
    """``Relu`` of ``ReluBackward0``."""
    name = str(node.name()).rpartition("::")[2]
    return name.partition("Backward")[0]


def inputs_of(node: Any) -> list[Any]:
    return [following for following, _ in node.next_functions]


def through(node: Any, names: set[str], users: Counter[Any] | None = None) -> Any:
    """Follows first inputs as long as the node is one of ``names``.

    With ``users``, which counts how often each result is used, a result used twice ends it: None.
    """
    while node is not None and base_name(node) in names:
        if users is not None and users[node] > 1:
            return None
        following = inputs_of(node)
        if base_name(node) == "Mul" and following[1:2] != [None]:
            break  # a product of two results is no dropout mask
        node = following[0] if following else None
    return node


def walk(root: Any, limit: int = _LIMIT) -> Iterator[Any]:
    """Every node once, from the result towards the inputs."""
    seen, queue = {root}, deque([root])
    while queue and len(seen) < limit:
        node = queue.popleft()
        yield node
        for following in inputs_of(node):
            if following is not None and following not in seen:
                seen.add(following)
                queue.append(following)


def saved(node: Any, name: str) -> Tensor | None:
    """A tensor that autograd saved; None when it was freed or overwritten.

    What a hook has packed is left alone: unpacking it may recompute a forward pass, or take it from
    where it is needed once.
    """
    try:
        if getattr(getattr(node, f"_raw_saved_{name}", None), "unpack_hook", None) is not None:
            return None
        value = getattr(node, f"_saved_{name}", None)
    except RuntimeError:
        return None
    return value if isinstance(value, Tensor) else None


def parameter_id(node: Any) -> int | None:
    """The parameter that an operation has as a direct (or transposed) input."""
    for following in inputs_of(node):
        leaf = through(following, VIEWS) if following is not None else None
        if leaf is not None and hasattr(leaf, "variable"):
            return id(leaf.variable)
    return None


class GraphFacts:
    """Activation functions with their dead or saturated units, and neighbouring linear modules."""

    def __init__(
        self,
        owners: dict[int, tuple[str, str]],
        stepped: Callable[[], set[int]],
        answers: Answers,
    ) -> None:
        self._owners = owners
        self._answers = answers
        self._stepped = stepped
        self._strangers: dict[int, list[int]] = {}
        self._pairs: dict[tuple[str, str], list[int]] = {}
        self._linear: list[str] = []
        self._units: dict[str, Units] = {}
        self._finished: dict[str, dict[str, Any]] = {}
        self._started: dict[str, dict[str, Any]] = {}
        self._dead_since: dict[str, int] = {}  # first step of the first burst that saw it
        self._heads: set[tuple[str | None, str]] = set()
        self._operations: set[str] = set()
        self._through_time: dict[str, ThroughTime] = {}
        self.forms = Forms()

    def examine(self, output: Tensor, step: int, entry: str = "", *, judges: bool = False) -> None:
        """Walks the graph of an output of the module at path ``entry``.

        Args:
            judges: that module is given data as well, so that another's output which it gets is
                made to look like data, and ends there.
        """
        if output.grad_fn is None:
            return
        last = through(output.grad_fn, VIEWS)
        nodes = list(walk(output.grad_fn))
        users: Counter[Any] = Counter()
        form = self.forms.begin(entry, step)
        if form is not None or step < 2:
            users.update(n for node in nodes for n in inputs_of(node) if n is not None)
        if step < 2:
            self._operations.update(map(base_name, nodes))
            self._find_strangers(nodes)
        repeated: dict[str, list[Any]] = {}
        for position, node in enumerate(nodes):
            name = base_name(node)
            if form is not None and name in _BENDS and node != last:
                form.count(name)
            if name in _ACTIVATIONS and node == last:
                self._heads.add((self._fed_by(node), _ACTIVATIONS[name]))
            elif name in _ACTIVATIONS and not (judges and self._is_head(node, name, entry)):
                key = self._activation(node, _ACTIVATIONS[name], position, step)
                if key is not None:
                    repeated.setdefault(key, []).append(node)
            elif name in _INPUT_OF and (form is not None or step < 2):
                self._linear_operation(node, users, entry, form, first=step < 2)
        for key, calls in repeated.items():
            if len(calls) >= _RECURRENT:
                through_time = self._through_time.setdefault(
                    key, ThroughTime(len(calls), self._answers)
                )
                order = sorted(calls, key=lambda node: int(node._sequence_nr()))
                through_time.watch(latest=order[-1], earliest=order[0], step=step)

    def _fed_by(self, node: Any) -> str | None:
        """The module whose values an activation bends."""
        source = next((n for n in inputs_of(node) if n is not None), None)
        return None if source is None else self._owner_below(through(source, VIEWS | _POOLS))

    def _is_head(self, node: Any, name: str, entry: str) -> bool:
        """Whether it ends another model that the script calls, such as a GAN's generator."""
        path, function = self._fed_by(node), _ACTIVATIONS[name]
        if path is None or (path, function) not in self._heads or _within(path, entry):
            return False
        self._answers.ask(partial(self._forget, f"{path}>{function}"))
        return True

    def _forget(self, key: str) -> None:
        for kept in (self._units, self._finished, self._started, self._dead_since):
            kept.pop(key, None)

    def _find_strangers(self, nodes: list[Any]) -> None:
        """Parameters that the forward pass uses and neither model nor optimizer knows."""
        stepped = self._stepped()
        for node in nodes:
            leaf = getattr(node, "variable", None)
            known = id(leaf) in self._owners or id(leaf) in stepped
            if isinstance(leaf, torch.nn.Parameter) and not known:
                self._strangers[id(leaf)] = list(leaf.shape)

    # ------------------------------------------------------------------ linear after linear

    def _linear_operation(
        self, node: Any, users: Counter[Any], entry: str, form: Form | None, *, first: bool
    ) -> None:
        """Notes a linear operation that another one feeds: in the first steps, and in bursts."""
        path = self._owner(node)
        if path is None or not path.startswith(entry):
            return
        if first and path not in self._linear:
            self._linear.append(path)
        source = inputs_of(node)[_INPUT_OF[base_name(node)]]
        source = through(source, VIEWS | _NORMS | _DROPOUTS, users)
        if source is None or base_name(source) not in _INPUT_OF or users[source] > 1:
            return  # a result that is used elsewhere too (a residual) is not lost
        before = self._owner(source)
        outside = before is None or not before.startswith(entry) or before == path
        if not outside and not _grouped(node) and not _grouped(source):
            if form is not None:
                form.pair(str(before), path, _widths(source, node))
            if first:
                self._pairs[str(before), path] = _widths(source, node)

    def _owner(self, node: Any) -> str | None:
        parameter = parameter_id(node)
        known = self._owners.get(parameter) if parameter is not None else None
        return known[0] if known else None

    def _owner_below(self, node: Any, depth: int = 12) -> str | None:
        """The module whose operation feeds ``node``, as far as one chain of inputs tells."""
        pending = [node]
        for _ in range(depth):
            if not pending:
                return None
            current = pending.pop(0)
            path = self._owner(current)
            if path is not None:
                return path
            pending += [n for n in inputs_of(current) if n is not None]
        return None

    # ------------------------------------------------------------------ activations

    def _activation(self, node: Any, function: str, position: int, step: int) -> str | None:
        """Measures the units; gives the key under which the module's calls are collected."""
        result = saved(node, "result")
        source = next((n for n in inputs_of(node) if n is not None), None)
        if result is None or source is None or result.is_nested:
            return None
        if result.dim() < 2 or result.numel() == 0:
            return None
        result = result.detach()
        path = self._fed_by(node)
        key = f"{path}>{function}" if path is not None else f"?{position}>{function}"
        call = UnitCall(path, function, units_of(result), result.numel(), step)
        active = (active_units(result),) if function == "relu" else ()
        then = partial(self._note, key, call)
        self._answers.ask(then, *shares(result, function), *active)
        return key

    def _note(
        self,
        key: str,
        call: UnitCall,
        nonfinite: Any,
        zeros: Any,
        saturated: Any,
        active: Tensor | None = None,
    ) -> None:
        """What one call's units did."""
        if nonfinite:
            return
        units = self._units.get(key)
        if units is None or units.width != call.width:
            units = self._units[key] = Units(call)
        units.add(call, float(zeros), float(saturated), active)
        if call.step == 0 and key not in self._started:
            self._started[key] = units.row()

    def end_burst(self) -> None:
        """Closes the window over which a unit that never fires counts as dead."""
        self._answers.ask(self._close_units)

    def _close_units(self) -> None:
        for key, units in self._units.items():
            if units.passes >= 4:
                self._finished[key] = row = units.row()
                if (row["dead"] or 0.0) > 0.5:
                    self._dead_since.setdefault(key, units.first)
                else:
                    self._dead_since.pop(key, None)
        if self._units:  # an activation that the model has lost says nothing any more
            self._finished = {k: v for k, v in self._finished.items() if k in self._units}
        self._units = {}

    def entry_input(self, output: Tensor) -> tuple[str, Tensor | None]:
        """The first operation with parameters that meets the data, and what it receives.

        Normalisation inside ``forward`` is thereby taken into account. The operation is empty
        when none is found.
        """
        if output.grad_fn is None:
            return "", None
        found: tuple[str, Tensor | None] = ("", None)
        for node in walk(output.grad_fn):
            name = base_name(node)
            following = inputs_of(node)
            if name in _INPUT_OF and following[_INPUT_OF[name]] is None:
                kept = saved(node, "mat1" if name == "Addmm" else "input")
                found = (name, kept if kept is not None else saved(node, "self"))
            elif name in _NORMALISED and following[:1] == [None]:
                return name, saved(node, "input")
            elif name == "Embedding":
                return name, None
        return found

    def document(self) -> dict[str, Any]:
        rows = dict(self._finished)
        rows.update({key: u.row() for key, u in self._units.items() if u.passes >= 4})
        for key, row in rows.items():
            row["at_start"] = self._started.get(key)
            row["dead_since"] = self._dead_since.get(key)
        return {
            "activations": list(rows.values()),
            "through_time": [
                {"module": key.partition(">")[0], **through_time.row()}
                for key, through_time in self._through_time.items()
            ],
            "strangers": list(self._strangers.values()),
            "operations": sorted(self._operations),
            "linear_modules": self._linear,
            "forms": self.forms.document(),
            "linear_pairs": [
                {"first": first, "second": second, "widths": widths}
                for (first, second), widths in islice(self._pairs.items(), _MOST_PAIRS)
            ],
        }


def _within(path: str, entry: str) -> bool:
    return entry == "" or path == entry or path.startswith(f"{entry}.")


def _grouped(node: Any) -> bool:
    return int(getattr(node, "_saved_groups", 1)) > 1


def _widths(first: Any, second: Any) -> list[int]:
    """Inputs, hidden width and outputs of two linear operations, as far as the graph tells."""
    weight, following = _weight(first), _weight(second)
    if weight is None or following is None:
        return []
    return [weight[1], weight[0], following[0]]


def _weight(node: Any) -> tuple[int, int] | None:
    for source in inputs_of(node):
        leaf = through(source, VIEWS) if source is not None else None
        if leaf is not None and hasattr(leaf, "variable") and leaf.variable.dim() >= 2:
            shape = leaf.variable.shape
            return int(shape[0]), int(torch.Size(shape[1:]).numel())
    return None
