"""NaN or infinity in the loss, an activation, a gradient or a parameter.

Statistic: any non-finite value; the place is the first module in forward order, and the operation
and source line where anomaly detection or the replay named them.
Source: SageMaker Debugger ExplodingTensor, DeepLocalize.
False alarms: steps that GradScaler skips are normal: gradients that overflow by a factor above 1 do
not count, and a gradient that is non-finite while every loss stays finite is only a note. A
GradScaler that has made no step for ten tries, with a loss, weights or gradients at a factor of 1
that are not finite, is past that.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inspector.diagnosis.births import Birth, birth, birth_in_loss
from inspector.diagnosis.drawing import over_steps
from inspector.diagnosis.finding import Evidence, Finding, Remedy
from inspector.diagnosis.observations import Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import remedies
from inspector.events import NonFinite, Origin, Rewound, StepSkipped

CODE = "nonfinite"
_FROM_OPERATION = (
    "NaN arises from log or sqrt of a negative number, 0/0 or inf − inf; infinity from "
    "overflow or division by zero. "
)
_FROM_DATA = (
    "The value came with the data: a missing number, a division by a deviation of zero in "
    "normalising, or a damaged file. Mend or leave out these samples where they are loaded. "
)
_FIND_DATA = Remedy(
    text="Find them before training.",
    code="bad = [i for i, (x, _) in enumerate(dataset) if not torch.isfinite(x).all()]",
)
_SPREADS = (
    "One NaN in a gradient makes every parameter NaN at the next step, and nothing recovers "
    "from that."
)
_STUCK = (
    "GradScaler finds that in the gradients and has made no step since step {first} (at least "
    "{tries:,} tries): it halves its factor each time, which does not help, since the factor is "
    "not the reason."
)
_STUCK_AFTER = 10
_CERTAIN = ("sigmoid", "softmax")  # reach 0 and 1 exactly
_INTO_MODEL = "the gradient that the loss sends into the model"
_GO_BACK = Remedy(
    text="Go back to the last weights that were finite, now and whenever it happens again.",
    control="on_nonfinite",
    value="skip",
)


@register(CODE)
def check(run: Observations, _limits: Thresholds) -> Iterator[Finding]:
    skips = [(step, e) for step, e in run.events_of(StepSkipped) if "GradScaler" in e.reason]
    normal = {step for step, _ in skips}
    normal -= {step for step, e in skips if e.scale is not None and e.scale <= 1}
    events = [
        (step, e)
        for step, e in run.events_of(NonFinite)
        if step not in normal or e.where != "gradient"
    ]
    loss_step = run.first_nonfinite_loss
    in_data = int(run.part("inputs").get("raw_nonfinite") or 0)
    in_targets = int(run.targets.get("nonfinite") or 0)
    if not events and loss_step is None and not in_data and not in_targets:
        return
    first = events[0][0] if events else loss_step if loss_step is not None else 0
    event = events[0][1] if events else None
    lasting = loss_step is not None or in_data > 0 or in_targets > 0 or _gradients_lost(run)
    tries = _without_step(run, skips)
    lasting = lasting or tries > 0
    place = _place(event, in_data, in_targets)
    born = next((e for at, e in run.events_of(Origin) if at == first), None)
    with_data = in_data > 0 or in_targets > 0
    if born is not None and born.phase == "data":
        place, with_data = born.op + _samples(born), True
    elif born is not None and born.phase == "loss":
        what = "the loss itself" if first == loss_step else _INTO_MODEL
        place = what + _samples(born)
    why, helps = _advice(event, with_data=with_data)
    outside = born is not None and (born.phase == "loss" or born.in_loss)
    if outside and first == loss_step and (known := _of_loss(run, event)):
        why, helps = known.why, known.remedies
    yield Finding(
        code=CODE,
        level="critical" if lasting else "note",
        title=f"Values become non-finite at step {first}: first seen in {place}.",
        confidence=0.9 if lasting else 0.4,
        module=event.module if event else None,
        op=event.op if event else "",
        file=event.file if event else "",
        line=event.line if event else 0,
        step=first,
        evidence=(
            Evidence(
                statistic="non-finite values",
                value=float(event.count) if event and event.count else None,
                quantity=_shown_by(run, loss_step),
                first=first,
                last=first if event and event.count else run.last_step,
                drawing=over_steps(run.loss.steps, run.loss.values, "loss")
                if loss_step is not None
                else None,
            ),
        ),
        explanation=why + (_STUCK.format(first=first, tries=tries) if tries else _SPREADS),
        reference="SageMaker Debugger ExplodingTensor; DeepLocalize (Wardat et al. 2021)",
        remedies=(_GO_BACK,) * _may_go_back(run, event) + helps,
    )


def _advice(event: NonFinite | None, *, with_data: bool) -> tuple[str, tuple[Remedy, ...]]:
    """Why it arises, and what helps: of the operation where that is known."""
    if with_data:
        return _FROM_DATA, (_FIND_DATA,)
    known = birth(event.op) if event is not None else None
    if known is not None:
        return known.why, known.remedies
    return _FROM_OPERATION, tuple(r for r in remedies(CODE) if not (_named(event) and r.control))


def _of_loss(run: Observations, event: NonFinite | None) -> Birth | None:
    """What the model's last activation tells of a loss that is not finite, or that nothing does."""
    activation = str(run.part("loss", "outputs").get("activation") or "")
    op = event.op if event is not None else ""
    if op not in ("", "the loss") and not (op.startswith("log") and activation in _CERTAIN):
        return None  # the operation itself is known
    return birth_in_loss(activation)


def _named(event: NonFinite | None) -> bool:
    """Whether anomaly detection could not tell more."""
    return event is not None and bool(event.op or event.where == "parameter")


def _shown_by(run: Observations, loss_step: int | None) -> str:
    """The series in which it can be seen; none where no step was made of it."""
    if loss_step is not None:
        return "loss"
    counts = run.series("nonfinite").finite.values
    return "nonfinite" if len(counts) and counts.max() > 0 else ""


def _may_go_back(run: Observations, event: NonFinite | None) -> bool:
    lost = event is not None and event.where == "parameter"
    return lost and not run.events_of(Rewound)


def _without_step(run: Observations, skips: list[tuple[int, StepSkipped]]) -> int:
    """Tries since the last step, as the last event tells; 0 while GradScaler gets on."""
    if not skips or skips[-1][1].in_a_row < _STUCK_AFTER or run.last_step > skips[-1][0]:
        return 0
    return skips[-1][1].in_a_row


def _samples(born: Origin) -> str:
    """Which of the batch, as far as the replay has told."""
    if not born.samples:
        return ""
    shown = ", ".join(map(str, born.samples[:5])) + ", …" * (len(born.samples) > 5)
    return f" (sample{'s' * (len(born.samples) > 1)} {shown})"


def _gradients_lost(run: Observations) -> bool:
    """Whether no measured gradient is finite any more at the end."""
    last = run.grad_norm.values[-4:]
    return len(last) == 4 and not np.isfinite(last).any()


def _place(event: NonFinite | None, in_data: int, in_targets: int) -> str:
    if in_data:
        return f"the inputs ({in_data} values)"
    if in_targets:
        return f"the targets ({in_targets} values)"
    if event is None:
        return "the loss"
    if event.where == "parameter" and event.parameter:
        return f"the parameter {event.parameter}"
    name = event.parameter or event.module
    kind = f" ({event.module_type})" if event.module_type else ""
    if event.where == "backward":
        return f"the backward pass of {name}{kind}" if name else f"the derivative of the loss{kind}"
    return f"the {event.where} of {name}{kind}" if name else f"the {event.where}{kind}"
