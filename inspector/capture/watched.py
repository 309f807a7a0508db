"""The model and the optimizers that are watched, as they are now."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import torch

from inspector.capture.parameters import ParameterSet, collect
from inspector.capture.probes import Probes
from inspector.capture.stepping import OptimizerProbe


class Watched:
    """Keeps neither the model nor an optimizer alive.

    Attributes:
        parameters: those that are measured.
        probes: what measures them; None after :meth:`forget`.
        each: one probe for each optimizer.
        remote: some parameters are not on the CPU.
        lazy: some have no values before the first forward pass.

    Args:
        gone: is called when the model is.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        gone: Callable[[], None],
    ) -> None:
        self._model = weakref.ref(model, lambda _: gone())
        self._optimizers = [weakref.ref(optimizer) for optimizer in optimizers]
        self._adopt(collect(model, optimizers))

    def _adopt(self, parameters: ParameterSet) -> None:
        """Measures these parameters from now on."""
        self.parameters = parameters
        self.probes: Probes | None = Probes(parameters, self.optimizers())
        self.each: list[OptimizerProbe] = self.probes.each
        self.remote, self.lazy = self.probes.remote, self.probes.lazy
        self._members = self._grouped()

    def _grouped(self) -> list[int]:
        groups = [group["params"] for one in self.optimizers() for group in one.param_groups]
        return [id(tensor) for group in groups for tensor in group]

    @property
    def regrouped(self) -> bool:
        """Whether parameter groups have got other parameters since, or fewer."""
        return self._members != self._grouped()

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Those that live."""
        return [o for reference in self._optimizers if (o := reference()) is not None]

    def position(self, optimizer: torch.optim.Optimizer) -> int | None:
        """Of an optimizer among those that are watched; None for others."""
        known = [reference() for reference in self._optimizers]
        return next((i for i, o in enumerate(known) if o is optimizer), None)

    def follow(self) -> bool:
        """Follows parameters that were replaced, added or initialized; True if there are any."""
        model, optimizers = self._model(), self.optimizers()
        if model is None or len(optimizers) < len(self._optimizers):
            return False
        if not self.lazy and self.parameters.matches(model, optimizers):
            return False
        self._adopt(collect(model, optimizers))
        return True

    def replace(self, position: int, optimizer: torch.optim.Optimizer) -> None:
        """Another optimizer takes the place of one.

        What was measured of the step that runs stays where the same probes go on measuring the
        same parameters; else its gradients before clipping are not known.
        """
        self._optimizers[position] = weakref.ref(optimizer)
        model, optimizers, measured = self._model(), self.optimizers(), self.probes
        if measured is None or model is None or len(optimizers) < len(self._optimizers):
            return
        found = collect(model, optimizers)
        probes = Probes(found, optimizers)
        same = [id(t) for t in found.tensors] == [id(t) for t in self.parameters.tensors]
        if same and [p.positions for p in probes.each] == [p.positions for p in self.each]:
            self.parameters = measured.parameters = found
            self.each[position].follow(optimizer)
            self._members = self._grouped()
            return
        self._adopt(found)
        for probe in self.each:
            probe.forgo()

    def forget(self) -> None:
        """Nothing is measured any more."""
        self.probes = None
        self.each = []
        self.parameters = ParameterSet((), (), (), ())
