"""What rules look at: a run's series, documents and events, each read once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from inspector.events import CommandApplied, Event, StoredEvent

Floats = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]
E = TypeVar("E", bound=Event)

_POINTS = 20_000


class RunLike(Protocol):
    """The part of :class:`inspector.store.reader.Run` that is needed."""

    def series(self, quantity: str, subject: str = "", *, max_points: int = 2000) -> Any: ...
    def document(self, kind: str, step: int | None = None) -> dict[str, Any] | None: ...
    def events(self, after: int = 0) -> list[StoredEvent]: ...


@dataclass(frozen=True, slots=True)
class Curve:
    """Steps and values of a series; NaN where a non-finite value was recorded."""

    steps: Steps
    values: Floats

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def finite(self) -> Curve:
        keep = np.isfinite(self.values)
        return Curve(self.steps[keep], self.values[keep])

    def between(self, first: int, last: int) -> Curve:
        keep = (self.steps >= first) & (self.steps <= last)
        return Curve(self.steps[keep], self.values[keep])

    def median(self, default: float = math.nan) -> float:
        finite = self.values[np.isfinite(self.values)]
        return float(np.median(finite)) if len(finite) else default


class Observations:
    """Lazy view of one run for the rules; missing things are empty, never errors."""

    def __init__(self, run: RunLike) -> None:
        self._run = run
        self._series: dict[tuple[str, str], Curve] = {}

    def series(self, quantity: str, subject: str = "") -> Curve:
        key = quantity, subject
        if key not in self._series:
            found = self._run.series(quantity, subject, max_points=_POINTS)
            values = np.asarray(found.values, dtype=np.float64).copy()
            values[~np.isfinite(values)] = np.nan
            self._series[key] = Curve(np.asarray(found.steps, dtype=np.int64), values)
        return self._series[key]

    @cached_property
    def structure(self) -> dict[str, Any]:
        """The ``structure`` document (see ``capture/structure.py``), or empty."""
        return self._run.document("structure") or {}

    def gradient_sizes(self, until: int) -> dict[str, float]:
        """Median gradient size (rms) of each weight in the last examined steps up to a step."""
        rows = (self._run.document("structure", until) or {}).get("parameters") or ()
        return {
            row["name"]: float(np.median(late))
            for row in rows
            if (late := [value for value in row["grad_rms"][-8:] if value])
        }

    def part(self, *path: str) -> Any:
        """A part of the structure document, or an empty dict."""
        value: Any = self.structure
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return {} if value is None else value

    @cached_property
    def events(self) -> list[StoredEvent]:
        return self._run.events()

    def events_of(self, kind: type[E]) -> list[tuple[int, E]]:
        """Step and event of every event of a kind, oldest first."""
        return [(s.step, s.event) for s in self.events if isinstance(s.event, kind)]

    def set_on_purpose(self, control: str) -> tuple[str, ...]:
        """What the run's own settings, or a person at a control, gave for ``frozen`` and such."""
        config = getattr(self._run, "config", None) or {}
        given = [(config.get("controls") or {}).get(control) or ()]
        given += [
            event.effective or ()
            for _, event in self.events_of(CommandApplied)
            if event.name == control
        ]
        return tuple(path for paths in given for path in paths)

    # ------------------------------------------------------------------ often needed

    @cached_property
    def loss(self) -> Curve:
        return self.series("loss")

    @cached_property
    def last_step(self) -> int:
        return int(self.loss.steps[-1]) if len(self.loss) else int(self.structure.get("step", 0))

    @cached_property
    def parameters(self) -> list[dict[str, Any]]:
        """Rows of the structure document, in registration order."""
        rows = self.structure.get("parameters")
        return rows if isinstance(rows, list) else []

    @cached_property
    def modules(self) -> list[dict[str, Any]]:
        """Rows of the ``modules`` document, in call order."""
        rows = (self._run.document("modules") or {}).get("modules")
        return rows if isinstance(rows, list) else []

    @cached_property
    def call_order(self) -> dict[str, int]:
        """Position of each called module; a module that was never called is missing."""
        return {
            row["path"]: position
            for position, row in enumerate(self.modules)
            if (row.get("call_index") or 0) >= 0
        }

    @cached_property
    def weights(self) -> list[dict[str, Any]]:
        """Trainable parameters with two dimensions or more, in call order, no embeddings."""
        rows = [
            row
            for row in self.parameters
            if len(row["shape"]) >= 2
            and row["requires_grad"]
            and row["in_optimizer"]
            and row["module_type"] != "Embedding"
        ]
        return sorted(rows, key=lambda row: self.call_order.get(row["module"], 1 << 30))

    @cached_property
    def grad_norm(self) -> Curve:
        """Gradient norm of all parameters: every measured step, before clipping where known."""
        return _merged(self.series("total_grad_norm"), self._timeline("grad_norm"))

    @cached_property
    def update_ratio(self) -> Curve:
        """‖Δw‖/‖w‖ of all parameters, of every measured step."""
        return _merged(self.series("total_update_ratio"), self._timeline("update_ratio"))

    def _timeline(self, name: str) -> Curve:
        found = self.part("timeline")
        pairs = [
            (step, math.nan if value is None else float(value))
            for step, value in zip(found.get("steps", ()), found.get(name, ()), strict=False)
            if value is not None or name == "grad_norm"
        ]
        return Curve(
            np.array([step for step, _ in pairs], dtype=np.int64),
            np.array([value for _, value in pairs], dtype=np.float64),
        )

    @cached_property
    def targets(self) -> dict[str, Any]:
        """Facts about all targets of the data set, or of the batches seen; maybe empty."""
        seen, whole = self.part("targets"), self.part("dataset")
        return {**seen, **whole} if whole else dict(seen)

    @cached_property
    def class_counts(self) -> list[int]:
        return [int(count) for count in self.targets.get("class_counts", ())]

    @cached_property
    def uses_cross_entropy(self) -> bool:
        losses = self.part("loss", "losses")
        return "nll" in losses or self.part("loss").get("function") == "CrossEntropyLoss"

    @cached_property
    def floor(self) -> float | None:
        """The loss of the best constant answer: entropy of the labels, or target variance.

        None where it is not known, such as for sums over the batch.
        """
        loss = self.part("loss")
        if loss.get("reduction") in ("sum", "none"):
            return None
        names = set(loss.get("losses", ()))
        counts = np.array([c for c in self.class_counts if c], dtype=np.float64)
        if self.uses_cross_entropy and len(counts) > 1:
            share = counts / counts.sum()
            return float(-(share * np.log(share)).sum())
        if names & {"bce", "bce_with_logits"} and len(counts) == 2:
            share = counts / counts.sum()
            return float(-(share * np.log(share)).sum())
        if names == {"mse"} and self.targets.get("std") and len(self.targets["shape"]) <= 2:
            return float(self.targets["std"]) ** 2
        return None

    @cached_property
    def guessing(self) -> float | None:
        """Cross-entropy of equal scores for all outputs, ln C; None for other losses."""
        columns = int(self.part("loss", "outputs").get("columns") or 0)
        if not self.uses_cross_entropy or columns < 2:
            return None
        return math.log(columns)

    @cached_property
    def summed_over(self) -> int:
        """Samples over which the loss is summed; 0 for a mean, or where that is not known.

        Where no loss module tells, a first loss of about ln C for each sample of the batch does,
        unless weights start so large (twice Xavier's) that they may have made it.
        """
        samples = int((self.part("loss", "outputs").get("shape") or [0])[0])
        reduction = self.part("loss").get("reduction")
        large = any((row["start"].get("gain") or 0.0) > 2 for row in self.weights)
        if reduction is not None or large:
            return samples if reduction == "sum" else 0
        per_sample = self.first_loss / (self.guessing or math.inf) / max(samples, 1)
        return samples if samples >= 8 and 0.8 < per_sample < 1.5 else 0

    @cached_property
    def first_loss(self) -> float:
        """Loss before anything was learned."""
        return float(self.loss.finite.values[0]) if len(self.loss.finite) else math.nan

    def loss_at_end(self, share: float = 0.1) -> float:
        """Median loss of the last part of the run."""
        values = self.loss.values[-max(int(len(self.loss) * share), 5) :]
        finite = values[np.isfinite(values)]
        return float(np.median(finite)) if len(finite) else math.nan

    def loss_at_start(self, share: float = 0.1) -> float:
        """Median loss of the first part of the run."""
        values = self.loss.values[: max(int(len(self.loss) * share), 5)]
        finite = values[np.isfinite(values)]
        return float(np.median(finite)) if len(finite) else math.nan

    @cached_property
    def learning(self) -> bool:
        """Whether the loss has clearly fallen: by a fifth, or under nine tenths of the floor."""
        start, end = self.loss_at_start(), self.loss_at_end()
        if not (math.isfinite(start) and math.isfinite(end)):
            return False
        if self.floor is not None:
            return end < 0.9 * self.floor
        return end < 0.8 * start

    def began(self, after: int, seen: int) -> int:
        """The step of a change that happened after one step and was seen at another.

        The first one from which the loss lies above the range of the steps before, or is lost;
        ``seen`` where it never does.
        """
        before = self.loss.between(after - 30, after).finite.values
        if not len(before):
            return seen
        high = float(before.max()) + 0.02 * abs(float(before.max()))
        loss = self.loss.between(after + 1, seen + 4)
        values = np.where(np.isfinite(loss.values), loss.values, np.inf)
        for at, step in enumerate(loss.steps.tolist()):
            if step <= seen and values[at] > high and np.median(values[at : at + 5]) > high:
                return int(step)
        return seen

    @cached_property
    def first_nonfinite_loss(self) -> int | None:
        bad = ~np.isfinite(self.loss.values)
        return int(self.loss.steps[bad.argmax()]) if bad.any() else None


def _merged(preferred: Curve, other: Curve) -> Curve:
    """Both curves by step; where both have a step, the first one's value."""
    values = dict(zip(other.steps.tolist(), other.values.tolist(), strict=True))
    values.update(zip(preferred.steps.tolist(), preferred.values.tolist(), strict=True))
    steps = sorted(values)
    return Curve(
        np.array(steps, dtype=np.int64),
        np.array([values[step] for step in steps], dtype=np.float64),
    )
