"""Labels and outputs, or labels and inputs, do not belong together.

Statistics: (a) outputs of shape (N, 1) against targets (N): they broadcast to (N, N) (exact, from
the graph or the loss module's arguments); (b) targets outside the range that the outputs'
activation can reach; (c) class numbers outside the outputs' columns, or labels of a type that the
loss refuses; (d) nearest neighbours among the inputs agree in their labels no more than chance
(3 standard errors; of a correlation 1/√n), and the model has not learned more than guessing on
its training or validation part; (e) outputs without a class, a loss that stays at the entropy of
the labels' frequencies or, where labels could not be seen, at ln C while weights move (notes);
(f) inputs that returned with the label they had, and in a later burst of steps do not (exact).
Source: own; (d) after Wilson's edited nearest neighbours and the randomisation test of Zhang et
al. 2017.
False alarms: (d) tasks whose solution nearest neighbours cannot see (parity, long sequences) in
runs that have not learned yet; sequences are only a note.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from inspector.diagnosis.drawing import as_bars, over_steps
from inspector.diagnosis.finding import Evidence, Finding, Remedy
from inspector.diagnosis.observations import Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.diagnosis.remedies import remedies
from inspector.events import Level, RunFailed
from inspector.numerals import short

CODE = "label_mismatch"
_RETURNED = 20  # known inputs in a burst
_ALL_LABELS = (
    "A model can only learn what its labels say. When labels are shifted, shuffled, of another "
    "range or shape, the loss falls to that of guessing and stays there, however long one trains; "
    "or the model learns single samples by heart."
)
_BROADCAST = (
    "A column of N outputs and a row of N targets are stretched into a table of N × N differences. "
    "The answer that suits all targets of a batch at once is their mean, so the model learns that, "
    "whatever its inputs are."
)
_SAME_SHAPE = Remedy(
    text="Give outputs and targets the same shape.",
    code="loss = F.mse_loss(model(x).squeeze(-1), y)  # or y.unsqueeze(-1)",
)
_FIT_LABELS = Remedy(
    text="Number the classes from 0, and give the model one output for each.",
    code="labels = labels.unique(return_inverse=True)[1]; nn.Linear(width, labels.max() + 1)",
)
_LOOK = Remedy(
    text="Let labels be examined, too: record the loss before the backward pass.",
    code="watch.record(loss=loss); loss.backward()",
)
_TYPE = Remedy(
    text="Give the loss labels of the type that it asks for.",
    code="labels.long()  # class numbers for cross-entropy; .float() for BCE and MSE",
)
_FREE_OUTPUT = Remedy(
    text="Leave out the last activation, or scale the targets into its range.",
    code="y = (y - y.mean()) / y.std()  # after nn.Linear(width, 1), and nothing behind it",
)
_RANGES = {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0)}
_FAILURES = re.compile(
    r"target.*(out of bounds|is out of)|expected (scalar type|target|floating point).*"
    r"(long|float|target)|target size|assertion.*(t >= 0|cur_target)",
    re.IGNORECASE,
)


@register(CODE, standard_errors=3.0, samples=128, steps=80)
def check(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    exact = [*_refused(run), *_shapes(run), *_range(run)]
    yield from exact
    later = _dealt_anew(run)
    if later is not None:
        yield later
        return
    yield from _unrelated(run, limits)
    if not exact:
        yield from _stuck_at_guessing(run)
    yield from _unused_outputs(run)


def _refused(run: Observations) -> Iterator[Finding]:
    for step, event in run.events_of(RunFailed):
        if _FAILURES.search(event.message) or _FAILURES.search(event.error):
            frame = event.frames[-1] if event.frames else None
            yield _finding(
                "critical", 0.95, f"The loss refused the labels: {event.message}",
                Evidence(statistic=event.error, first=step, last=step),
                file=frame.file if frame else "", line=frame.line if frame else 0, step=step,
                advice=(_suited(event.message),),
            )  # fmt: skip
            return
    columns = run.part("loss", "outputs").get("columns")
    highest = run.targets.get("max")
    integer = str(run.targets.get("dtype", "")).startswith(("int", "uint"))
    if run.uses_cross_entropy and columns and integer and highest is not None and columns > 1:
        dense = len(run.targets.get("shape", ())) > 1
        if highest >= columns and not dense:
            yield _finding(
                "critical", 0.95,
                f"Labels go up to {highest:.0f}, but the model has {columns} outputs.",
                Evidence(statistic="largest label", value=highest, threshold=columns - 1.0,
                         drawing=as_bars([("largest label", highest)], "class number",
                                         (columns - 1.0, f"last of {columns} outputs"),
                                         marked=("largest label",))),
                advice=(_FIT_LABELS,),
            )  # fmt: skip


def _suited(message: str) -> Remedy:
    """What helps against a loss's refusal, by its words."""
    if "size" in message.lower():
        return _SAME_SHAPE
    return _TYPE if "expected" in message.lower() else _FIT_LABELS


def _shapes(run: Observations) -> Iterator[Finding]:
    broadcast = run.part("loss").get("broadcast")
    differ = run.part("targets").get("shapes_differ")
    regression = set(run.part("loss").get("losses") or ()) & {"mse", "smooth_l1", "huber"}
    if broadcast:
        before, after = broadcast
        yield _finding(
            "critical", 0.96,
            f"Outputs of shape {tuple(before)} and targets broadcast to {tuple(after)}: every "
            "output is compared with every target.",
            Evidence(
                statistic="the loss compares N × N pairs", value=float(after[0]),
                drawing=as_bars(
                    [("outputs", float(math.prod(before))), ("compared", float(math.prod(after)))],
                    "numbers in a batch", marked=("compared",),
                ),
            ),
            advice=(_SAME_SHAPE,), why=_BROADCAST,
        )  # fmt: skip
    elif differ and regression:
        yield _finding(
            "critical", 0.9,
            f"Outputs have shape {tuple(differ[0])}, targets {tuple(differ[1])}.",
            Evidence(statistic="shapes of outputs and targets differ"),
            advice=(_SAME_SHAPE,), why=_BROADCAST,
        )  # fmt: skip


def _range(run: Observations) -> Iterator[Finding]:
    activation = run.part("loss", "outputs").get("activation")
    low, high = run.targets.get("min"), run.targets.get("max")
    regression = set(run.part("loss").get("losses") or ()) & {"mse", "smooth_l1", "huber"}
    function = str(run.part("loss").get("function"))
    if low is None or high is None or not (regression or function in ("L1Loss", "l1_loss")):
        return
    if run.class_counts and not run.targets.get("one_hot") and len(run.class_counts) > 2:
        return  # class numbers: the loss is what is wrong
    if activation == "relu" and low < 0 and run.targets.get("mean", 0) < run.targets.get("std", 0):
        bounds = (0.0, float("inf"))
    elif activation in _RANGES:
        bounds = _RANGES[activation]
    else:
        return
    reach = max(high - low, 1e-9)
    above = high > bounds[1]
    if low >= bounds[0] - 0.05 * reach and high <= bounds[1] + 0.05 * reach:
        return
    yield _finding(
        "critical", 0.92,
        f"Targets go from {short(low, 3)} to {short(high, 3)}, but the outputs pass through "
        f"{activation} and stay within [{short(bounds[0], 6)}, {short(bounds[1], 6)}].",
        Evidence(
            statistic="largest target" if above else "smallest target",
            value=high if above else low,
            threshold=bounds[1] if above else bounds[0],
            side="above" if above else "below",
            drawing=as_bars(
                [("smallest target", low), ("largest target", high)], "value",
                *((bound, f"{name} of {activation}: {short(bound, 6)}")
                  for bound, name in zip(bounds, ("least", "most"), strict=True)
                  if math.isfinite(bound)),
                marked=["smallest target"] * (low < bounds[0])
                + ["largest target"] * (high > bounds[1]),
            ),
        ),
        advice=(_FREE_OUTPUT,),
    )  # fmt: skip


def _dealt_anew(run: Observations) -> Finding | None:
    """Known inputs that come with other labels since a step."""
    rows = [row for row in run.part("labels_again") or () if row["again"] >= _RETURNED]
    shares = [row["same"] / row["again"] for row in rows]
    late = len(rows)
    while late and shares[late - 1] < 0.7:
        late -= 1
    if late in (0, len(rows)) or min(shares[:late]) < 0.95:
        return None
    step = run.began(rows[late - 1]["last"], rows[late]["first"])
    return _finding(
        "warning", 0.93,
        f"Since step {step} the same inputs come with other labels: only {shares[-1]:.0%} have "
        "the one they had.",
        Evidence(
            statistic="share of known inputs that have the label they had",
            value=shares[-1],
            threshold=0.7,
            side="below",
            quantity="loss",
            first=int(rows[late - 1]["last"]),
            last=int(rows[-1]["last"]),
            drawing=as_bars(
                [(f"steps {row['first']}–{row['last']}", share)
                 for row, share in zip(rows, shares, strict=True)],
                "share of known inputs with the label they had", (0.7, "limit: 0.7"),
                marked=[f"steps {row['first']}–{row['last']}" for row in rows[late:]],
            ),
        ),
        step=step,
    )  # fmt: skip


def _unrelated(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    near = run.part("neighbours")
    if near.get("samples", 0) < limits["samples"] or len(run.loss) < limits["steps"]:
        return
    errors = near.get("standard_errors")
    if errors is None and near.get("correlation") is not None:
        errors = near["correlation"] * math.sqrt(near["samples"])
    if errors is None or errors >= limits["standard_errors"] or not _not_better_than_guessing(run):
        return
    blind = len(run.part("inputs").get("raw_shape", ())) == 3 or run.floor is None
    yield _finding(
        "note" if blind else "warning",
        0.45 if blind else 0.84,
        "Labels have nothing to do with the inputs: similar samples agree only by chance.",
        Evidence(
            statistic="agreement of nearest neighbours over chance, in standard errors",
            value=errors,
            threshold=limits["standard_errors"],
            side="below",
            quantity="val_loss" if len(run.series("val_loss")) else "loss",
            last=run.last_step,
            drawing=as_bars(
                [("these labels", errors), ("labels by chance", 0.0)],
                "agreement of neighbours over chance, in standard errors",
                marked=("these labels",),
            ),
        ),
    )


def _not_better_than_guessing(run: Observations) -> bool:
    """Neither on held-out data nor, where there is none, on the training part."""
    floor = run.floor
    held_out = run.series("val_loss").finite
    if len(held_out) >= 2 and floor is not None:
        return float(held_out.values.min()) > 0.8 * floor
    accuracy = run.series("val_accuracy").finite
    counts = run.class_counts
    if len(accuracy) >= 2 and counts:
        return float(accuracy.values.max()) < 1.5 * max(counts) / sum(counts)
    if floor is not None:
        return run.loss_at_end() > 0.8 * floor
    return not run.learning


def _stuck_at_guessing(run: Observations) -> Iterator[Finding]:
    """Weights move well, but the loss stays at that of an answer that ignores the inputs.

    With labels that is the entropy of their frequencies, without any look at them ln C.
    """
    if len(run.loss) < 50 or run.first_loss <= 0:
        return
    moving, end = run.update_ratio.median(0.0), run.loss_at_end()
    guessing = run.floor if run.targets else run.guessing or run.loss_at_start()
    lowest = 0.9 if run.targets else 0.8
    if run.targets and not (_stalled(run) and _not_better_than_guessing(run)):
        return
    if not run.targets and guessing and end < 0.9 * guessing and not _stalled(run):
        return  # slow, but it falls: below ln C, where unequal classes leave the entropy
    if guessing and 1e-3 < moving < 0.1 and lowest * guessing < end < 1.1 * guessing:
        yield _finding(
            "note", 0.42, "The loss stays at that of guessing although the weights move.",
            Evidence(statistic="loss at the end over that of guessing", value=end / guessing,
                     threshold=lowest, quantity="loss", last=run.last_step,
                     drawing=over_steps(run.loss.steps, run.loss.values / guessing,
                                        "loss over that of guessing")),
            advice=() if run.targets else (_LOOK,), symptom=True,
            step=_stuck_since(run, lowest * guessing),
        )  # fmt: skip


def _stuck_since(run: Observations, low: float) -> int:
    """The step after the last 25 losses whose median was lower than that; 0 if there are none."""
    if len(run.loss) < 25:
        return 0
    windows = np.lib.stride_tricks.sliding_window_view(run.loss.values, 25)
    lower = np.flatnonzero(np.median(windows, axis=1) < low)
    return int(run.loss.steps[lower[-1] + 24]) + 1 if len(lower) else 0


def _stalled(run: Observations) -> bool:
    """Whether the last third of the run is no better than the third before it."""
    middle, last = run.last_step // 3, 2 * run.last_step // 3
    before, after = run.loss.between(middle, last), run.loss.between(last + 1, run.last_step)
    return after.median() > 0.99 * before.median()


def _unused_outputs(run: Observations) -> Iterator[Finding]:
    columns = run.part("loss", "outputs").get("columns") or 0
    occurring = sum(1 for count in run.class_counts if count)
    samples = sum(run.class_counts)
    dense = len(run.targets.get("shape", ())) > 1
    enough = samples >= max(20 * occurring, 5 * columns)
    if run.uses_cross_entropy and not dense and enough and columns > occurring >= 2:
        yield _finding(
            "note", 0.35, f"The model has {columns} outputs, but {occurring} classes occur.",
            Evidence(statistic="outputs without a class", value=float(columns - occurring),
                     drawing=as_bars([("outputs", float(columns)),
                                      ("classes that occur", float(occurring))], "count")),
        )  # fmt: skip


def _finding(
    level: Level,
    confidence: float,
    title: str,
    evidence: Evidence,
    *,
    file: str = "",
    line: int = 0,
    step: int = 0,
    advice: tuple[Remedy, ...] = (),
    why: str = _ALL_LABELS,
    symptom: bool = False,
) -> Finding:
    return Finding(
        code=CODE,
        level=level,
        title=title,
        confidence=confidence,
        file=file,
        line=line,
        step=step,
        evidence=(evidence,),
        explanation=why,
        reference="Zhang et al. 2017, arXiv:1611.03530; PyTorch's broadcasting warning",
        remedies=(*advice, *(() if advice and not symptom else remedies(CODE))),
        heading="No better than guessing" if symptom else "",
        symptom=symptom,
    )
