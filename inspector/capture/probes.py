"""What is measured of the parameters: one probe for each optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.parameter import is_lazy

from inspector.capture import native
from inspector.capture.cells import ParameterCells
from inspector.capture.measured import parameter_keys
from inspector.capture.parameters import ParameterSet
from inspector.capture.plain import PlainStep
from inspector.capture.stepping import OptimizerProbe


class Probes:
    """The parameters of the model and its optimizers, as they are now.

    Attributes:
        each: by optimizer; the first one also measures what nobody steps, and of what several
            optimizers step it is the first of them.
        keys: the series of a full step.
        remote: some parameters are not on the CPU.
        lazy: some have no values before the first forward pass.
        plain: ends full steps without a detour, where that is possible.
    """

    def __init__(
        self, parameters: ParameterSet, optimizers: Sequence[torch.optim.Optimizer]
    ) -> None:
        self.parameters = parameters
        self.keys = parameter_keys(parameters.names)
        self.remote = any(not t.is_cpu for t in parameters.tensors)
        self.lazy = any(is_lazy(t) for t in parameters.tensors)
        self.each: list[OptimizerProbe] = []
        left = list(range(len(parameters.tensors)))
        stepped = [{id(p) for g in one.param_groups for p in g["params"]} for one in optimizers]
        others = set[int]().union(*stepped[1:])
        stepped[0] = stepped[0] | {id(t) for t in parameters.tensors if id(t) not in others}
        for optimizer, ours in zip(optimizers, stepped, strict=True):
            mine = [i for i in left if id(parameters.tensors[i]) in ours]
            left = [i for i in left if id(parameters.tensors[i]) not in ours]
            tensors = [parameters.tensors[i] for i in mine]
            self.each.append(OptimizerProbe(optimizer, tensors, mine))
        extension = native.load()
        self.plain: PlainStep | None = None
        if extension is not None and len(self.each) == 1 and not self.remote:
            self.plain = PlainStep(extension, parameters, self.keys)

    def cells(self) -> ParameterCells:
        """The step's numbers of all parameters."""
        if len(self.each) == 1:
            return self.each[0].cells()
        joined = ParameterCells(len(self.parameters.tensors))
        for probe in self.each:
            joined.place(probe.cells(), probe.positions)
        return joined
