"""Numbers that went bad: where they were born, the steps they cost, the way back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from inspector.events.event import Event, Level
from inspector.events.source import source_line


@dataclass(frozen=True, slots=True, kw_only=True)
class NonFinite(Event):
    """NaN or infinity appeared. ``where`` is activation, loss, gradient, parameter or backward.

    ``module`` is the first module in forward order whose output was non-finite (for gradients:
    the module owning the first such parameter). ``op``, ``file`` and ``line`` are known when
    anomaly detection named the backward function and the forward call that created it.
    """

    kind: ClassVar[str] = "nonfinite"
    level: ClassVar[Level] = "critical"
    where: str
    module: str | None = None
    module_type: str = ""
    parameter: str | None = None
    op: str = ""
    file: str = ""
    line: int = 0
    code: str = ""
    count: int = 0
    policy: str = ""  # what follows: paused, continues, skipped

    @property
    def text(self) -> str:
        at = f" (called at {source_line(self.file, self.line)})" if self.file else ""
        if self.op and self.where == "backward":
            return f"Non-finite gradient born in {self.op}{at}."
        name = self.parameter or ("the model" if self.module == "" else self.module)
        subject = f" of {name}" if name is not None else ""
        with_data = self.op.startswith("the batch")  # nothing in the model or the loss
        kind = f" ({self.module_type})" if self.module_type and not with_data else ""
        born = f", born in {self.op}{at}" if self.op else ""
        return f"Non-finite {self.where}{subject}{kind}{born}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin(Event):
    """The step was run again, and this is where its first NaN or infinity was born.

    ``phase`` is forward, backward, loss (outside the model), data (it was in the batch),
    parameters (an earlier update made it) or unknown. ``op`` is the operation, in a backward pass
    its autograd function. ``tensors`` are its inputs: name, shape, dtype, smallest and largest
    finite value (low, high), number of non-finite ones. ``samples`` are positions in the batch.
    ``chain`` lists the operations that passed it on. ``how`` says what could be run again;
    ``report`` is the folder of the reproducing script, relative to the run directory.
    """

    kind: ClassVar[str] = "origin"
    level: ClassVar[Level] = "critical"
    phase: str = "unknown"
    op: str = ""
    kernel: str = ""
    module: str | None = None
    module_type: str = ""
    in_loss: bool = False
    file: str = ""
    line: int = 0
    code: str = ""
    value: str = "NaN"
    tensors: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    samples: list[int] = dataclasses.field(default_factory=list)
    batch: int = 0
    chain: list[str] = dataclasses.field(default_factory=list)
    how: str = ""
    note: str = ""
    held: bool = False
    report: str = ""
    seconds: float = 0.0

    @property
    def text(self) -> str:
        if self.phase == "unknown":
            return f"Origin of the non-finite value not found: {self.note}"
        kind = f" ({self.module_type})" if self.module_type else ""
        module = "the model" if self.module == "" else self.module
        of = f" of {module}{kind}" if module is not None else f" in the loss{kind}"
        at = f" at {source_line(self.file, self.line)}" if self.file else ""
        if self.phase in ("data", "parameters"):
            return f"{self.value} was already in {self.op}{self._in_samples}."
        if self.phase == "loss":
            return "The loss, outside the model, sent a non-finite gradient into it."
        return f"{self.value} born in {self.op} ({self.phase}){of}{at}{self._in_samples}."

    @property
    def _in_samples(self) -> str:
        if not self.samples:
            return ""
        shown = ", ".join(map(str, self.samples[:6])) + (", …" if len(self.samples) > 6 else "")
        word = "sample" if len(self.samples) == 1 else "samples"
        return f", {word} {shown} of {self.batch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewound(Event):
    """Parameters, buffers and optimizer state were put back as they were before ``to_step``."""

    kind: ClassVar[str] = "rewound"
    level: ClassVar[Level] = "warning"
    to_step: int
    reason: str = "command"

    @property
    def text(self) -> str:
        return f"Training was put back to where it was before step {self.to_step}."


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSkipped(Event):
    """The optimizer did not step (GradScaler found non-finite gradients, or a step was held).

    The first ones of a run have an event each; later ones when their number has doubled, and at
    the end of the run. ``in_a_row`` counts those since the last step that was made, ``total`` all
    of the run. ``scale`` is GradScaler's factor, ``loss`` what was recorded in the try.
    """

    kind: ClassVar[str] = "step_skipped"
    reason: str
    in_a_row: int = 1
    total: int = 0
    scale: float | None = None
    loss: str = ""

    @property
    def text(self) -> str:
        loss = f"; the loss was {self.loss}" if self.loss else ""
        if self.in_a_row < 2:
            total = f" ({self.total:,} in all)" if self.total > 1 else ""
            return f"Step skipped{total}: {self.reason}{loss}."
        rest = f", {self.total:,} in all" if self.total > self.in_a_row else ""
        return f"{self.in_a_row:,} tries in a row without a step{rest}: {self.reason}{loss}."


FAMILY: tuple[type[Event], ...] = (
    NonFinite, Origin, Rewound, StepSkipped,
)  # fmt: skip
