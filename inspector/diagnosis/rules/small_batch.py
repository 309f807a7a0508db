"""Batch normalisation that sees hardly any samples at once.

Statistic: samples in the batches that a batch normalisation trains with: the larger of its own
first input's and of the model's latest outputs', so that a last, smaller batch does not count.
Threshold: under 3 is a warning where the run does not learn, or validation is half as bad again as
training; else, and under 5, a note.
Source: Ioffe 2017, Batch Renormalization; Wu & He 2018, Group Normalization (the error rises
steeply below 8 samples).
False alarms: one image a step on purpose (image-to-image networks), where the normalisation stays
in training mode for good; such runs are only noted while they learn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inspector.diagnosis.drawing import as_bars
from inspector.diagnosis.finding import Evidence, Finding
from inspector.diagnosis.observations import Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import remedies

CODE = "small_batch"
_KINDS = ("BatchNorm", "SyncBatchNorm", "LazyBatchNorm")


@register(CODE, tiny=3.0, note=5.0, gap=1.5)
def check(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    module = _normalisation(run)
    if module is None:
        return
    samples = _samples(run, module)
    if not 0 < samples < limits["note"]:
        return
    serious = samples < limits["tiny"] and (not run.learning or _gap(run) > limits["gap"])
    limit = limits["tiny" if serious else "note"]
    yield Finding(
        code=CODE,
        level="warning" if serious else "note",
        title=f"Batch normalisation sees {samples} sample{'s' * (samples > 1)} at once.",
        confidence=0.75 if serious else 0.4,
        module=module["path"],
        evidence=(
            Evidence(
                statistic="samples in a batch",
                value=float(samples),
                threshold=limit,
                side="below",
                last=run.last_step,
                drawing=as_bars(
                    [("this run", float(samples)), ("usual", 32.0)],
                    "samples in a batch",
                    marked=("this run",),
                ),
            ),
        ),
        explanation=(
            "Batch normalisation subtracts the batch's mean and divides by its deviation. Of so "
            "few samples these are mostly noise, or the sample's own: what tells it from others is "
            "lost. In eval mode running averages take their place, and the model computes "
            "something else than it was trained for. Accumulating gradients does not help: each "
            "pass is normalised by itself."
        ),
        reference="Ioffe 2017, arXiv:1702.03275; Wu & He 2018, arXiv:1803.08494",
        remedies=remedies(CODE),
    )


def _normalisation(run: Observations) -> dict[str, Any] | None:
    """The first batch normalisation that was called and trains with the batch's own statistics."""
    modes = run.part("modes")
    if not modes.get("training_passes") or len(modes.get("eval_steps") or ()) > 1:
        return None
    frozen = tuple(modes.get("partly_eval") or ())
    for row in run.modules:
        called = (row.get("call_index") or 0) >= 0 and row.get("inputs")
        if called and str(row["type"]).startswith(_KINDS) and row["path"] not in frozen:
            return row
    return None


def _samples(run: Observations, module: dict[str, Any]) -> int:
    outputs = run.part("loss", "outputs").get("shape") or [0]
    return max(int((module["inputs"][0] or [0])[0]), int(outputs[0]))


def _gap(run: Observations) -> float:
    """Validation loss over training loss at the end; 0 where either is unknown."""
    held_out, end = run.series("val_loss").finite, run.loss_at_end()
    return float(held_out.values[-1]) / end if len(held_out) and end > 0 else 0.0
