"""Fully measured steps that Python does not attend; see ``full.c``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch.autograd import Variable

from inspector.capture import native
from inspector.capture.forward import ForwardProbe
from inspector.capture.measured import F32, Table
from inspector.capture.probes import Probes

_STEPS = 512
_BYTES = 4 << 20
_PROBES = ("forward", "gradients", "updates", "step")

References = tuple[Any, ...]


class FullSteps:
    """One optimizer's steps, for the parameters and modules that are measured now.

    Attributes:
        book: the extension's ``Full``.
    """

    def __init__(
        self,
        probes: Probes,
        forward: ForwardProbe,
        references: References,
        end_backward: Callable[[], None],
    ) -> None:
        self._made_for = probes, forward.columns, references
        self._probe = probes.each[0]
        self._forward = forward
        self._keys = probes.keys, forward.columns.keys
        columns = forward.columns
        self._work = np.empty(8 * columns.size)
        self._outputs = np.empty(6 * columns.size, np.float32)
        width = len(probes.keys) + len(columns.keys)
        self.book: Any = native.load().Full(
            forward.tape,
            self._probe.parameters,
            references,
            Variable._execution_engine.queue_callback,
            end_backward,
            (self._probe, self._work, self._outputs, columns),
            (
                *self._probe.updates.room,
                self._work.ctypes.data,
                self._outputs.ctypes.data,
                columns.selected.ctypes.data,
            ),
            columns.size,
            len(columns.keys),
            max(2, min(_STEPS, _BYTES // (4 * width))),
        )

    def fits(self, probes: Probes, forward: ForwardProbe, references: References) -> bool:
        """Whether it was made for these."""
        mine = self._made_for
        return mine[0] is probes and mine[1] is forward.columns and mine[2] is references

    @property
    def begun(self) -> bool:
        """Whether the step that runs has had a forward pass."""
        return bool(self._forward.tape.count)

    def begin(self) -> None:
        """Python leaves the coming steps to the extension."""
        self.book.begin(self._probe.at, self._probe.passes)

    def end(self) -> tuple[Table, Table, dict[str, int], tuple[int | None, ...]]:
        """Python takes over again, perhaps in the middle of a step.

        Gives the tables of the steps that are over, a row for each; the nanoseconds that each
        probe took of them and of the step that runs; and the states of the gradients as the
        backward pass began.
        """
        book = self.book
        rows, spent, then = book.end()
        self._probe.resume(book)
        self._probe.inside_step = bool(book.copied)
        self._forward.resume(book.mark, book.norm_mark)
        parameters, modules = self._keys
        table: F32 = np.frombuffer(rows, np.float32).reshape(-1, len(parameters) + len(modules))
        tables = (
            Table(parameters, table[:, : len(parameters)]),
            Table(modules, table[:, len(parameters) :]),
        )
        return *tables, dict(zip(_PROBES, spent, strict=True)), then
