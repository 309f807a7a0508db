"""The boards of the app: which charts each page shows."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

from inspector.charts.specs import Chart, Line, LineChart, lines, number
from inspector.quantities import QUANTITIES, SeriesKey

_PARTS = {"train": "training", "val": "validation", "valid": "validation", "test": "test"}
_MOST_OWN = 40
_BESIDE_RATES = ("momentum", "weight_decay")
_OF_LOSS, _OF_ACCURACY = "loss", "accuracy"
_BY_THE_CLOCK = (
    "By the clock over five seconds, slow motion included and pauses not: the last ones, of a run "
    "that has ended its last ones."
)
_UNCLIPPED = "nothing clipped"
_NO_LOSS = "No loss has been recorded; a script gives it with watch.record(loss=loss)."
_WAITING = "Share of the time of the last hundred steps that was spent waiting for batches."


def overview(
    keys: Iterable[SeriesKey] = (), rates: Mapping[str, str] | None = None
) -> tuple[Chart, ...]:
    """The live page: how the run does as a whole.

    Args:
        keys: what was recorded; accuracy and the loss scale are drawn only if they were, the rates
            of further parameter groups beside the first, and a chart is added for each scalar of
            the user's own, except that losses are drawn together where none is called just that.
            Those that differ in ``train_``, ``val_`` or ``test_`` only
            share a chart, and so do those with the same words before a ``/``.
        rates: names for people of the series of learning rates, where there are several.
    """
    keys = list(keys)
    families = _families(keys)
    measured = not keys or any(key.quantity in ("accuracy", "val_accuracy") for key in keys)
    loss, accuracy = families.pop(_OF_LOSS, ()), families.pop(_OF_ACCURACY, ())
    learning_rate, *_ = [_of_groups(name, families, rates or {}) for name in ("lr", *_BESIDE_RATES)]
    if keys and not any(key.quantity == "loss" for key in keys):
        loss = (*loss, *_losses(families))
    scaled = any(key.quantity == "grad_scale" for key in keys)
    return (
        lines(
            Line("loss", label="training"),
            Line("val_loss", label="validation"),
            *loss,
            title="Loss",
            smooth=0.9,
            wide=True,
            height=280,
            hint=_NO_LOSS,
        ),
        *([_accuracy(accuracy)] if measured or accuracy else []),
        learning_rate,
        lines(
            Line("total_grad_norm", label="before clipping"),
            Line("clipped_grad_norm", label="after", same=_UNCLIPPED),
            title="Gradient norm",
        ),
        lines("total_update_ratio"),
        *([lines("grad_scale")] if scaled else []),
        number("samples_per_s", reading="clock", beside="step_time", about=_BY_THE_CLOCK),
        number("data_seconds", reading="share", beside="step_time", about=_WAITING),
        number("memory"),
        number("gpu_memory"),
        number("clipped", title="Steps clipped", reading="share", control="clip"),
        *(
            lines(*drawn, id=f"own/{title}", title=_title(title, drawn))
            for title, drawn in list(families.items())[:_MOST_OWN]
        ),
    )


def settings(
    keys: Iterable[SeriesKey], titles: Mapping[str, str] | None = None
) -> tuple[Chart, ...]:
    """What each parameter group steps with besides its learning rate, where it was recorded.

    Args:
        titles: names for people of the series of ``overview``'s ``rates``.
    """
    keys = list(keys)
    families, known = _families(keys), {key.quantity for key in keys}
    return tuple(
        _of_groups(name, families, titles or {})
        for name in _BESIDE_RATES
        if name in known or name in families
    )


def _of_groups(
    setting: str, families: dict[str, tuple[Line, ...]], titles: Mapping[str, str]
) -> LineChart:
    """A line for each parameter group, one for groups with the same numbers; takes those of
    further groups out of the families."""
    further = families.pop(setting, ())
    if not further:
        return lines(setting)
    named = {f"{setting}{name.removeprefix('lr')}": title for name, title in titles.items()}
    return lines(
        Line(setting, label=named.get(setting, "group 0"), shared=True),
        *(
            dataclasses.replace(line, label=named.get(line.quantity, line.label), shared=True)
            for line in further
        ),
    )


def speed() -> tuple[Chart, ...]:
    """Where the time of a step goes: all of it, and what was waited for its batches.

    A logarithmic axis, since the step after a validation takes as long as both.
    """
    times = lines(
        Line("step_time", label="whole step"),
        Line("data_seconds", label="waiting for data"),
        title="Time of a step",
        wide=True,
    )
    return (dataclasses.replace(times, log=True),)


def _accuracy(more: tuple[Line, ...]) -> LineChart:
    return lines(
        Line("accuracy", label="training"),
        Line("val_accuracy", label="validation"),
        *more,
        title="Accuracy",
        smooth=0.9,
    )


def _losses(families: dict[str, tuple[Line, ...]]) -> list[Line]:
    """Takes out the losses of a script that has none of that name alone, such as a GAN's two."""
    found = []
    for title in [
        title for title in families if _OF_LOSS in re.split(r"[^a-z0-9]+", title.lower())
    ]:
        for line in families.pop(title):
            label = title if line.label == title else f"{title}, {line.label}"
            found.append(dataclasses.replace(line, label=label))
    return found


def _own_scalars(keys: Iterable[SeriesKey]) -> tuple[str, ...]:
    """Scalars that only some runs have: names of a script's own, and those of a test part."""
    names = {key.quantity for key in keys}
    return tuple(sorted(n for n in names if n not in QUANTITIES or n.startswith("test_")))


def _families(keys: Iterable[SeriesKey]) -> dict[str, tuple[Line, ...]]:
    """Lines of one chart each, by its title."""
    found: dict[str, list[Line]] = {}
    for name in _own_scalars(keys):
        title, label = _family(name)
        found.setdefault(title, []).append(Line(name, label=label))
    return {title: tuple(sorted(drawn, key=_place)) for title, drawn in found.items()}


def _title(family: str, drawn: tuple[Line, ...]) -> str:
    """A line that is alone has no label beside it: the title says of which part it is."""
    (label, *others) = (line.label for line in drawn)
    return f"{family}, {label}" if not others and label in _PARTS.values() else family


def _family(name: str) -> tuple[str, str]:
    """Title of the chart, and the label in its legend: ``val_f1`` is validation of f1."""
    group, slash, rest = name.partition("/")
    if slash and group not in _PARTS:
        return group, rest
    part, _, stem = name.replace("/", "_").partition("_")
    if part in _PARTS and stem:
        return stem, _PARTS[part]
    return name, name


def _place(line: Line) -> int:
    """Training first, then validation, then test, then the rest by name."""
    order = list(dict.fromkeys(_PARTS.values()))
    return order.index(line.label) if line.label in order else -1


def parameter(name: str, *, hint: str = "") -> tuple[Chart, ...]:
    """History of one parameter, which the page names above; ``hint`` is said of numbers that it
    does not have."""
    return (
        lines(
            Line("grad_norm", name, "before clipping"),
            Line("grad_norm_clipped", name, "after", same=_UNCLIPPED),
            title="Gradient norm",
            hint=hint,
        ),
        lines(Line("weight_norm", name), hint=hint, title="Weight norm"),
        lines(Line("update_ratio", name), hint=hint, title="Update ratio"),
    )


def module(path: str) -> tuple[Chart, ...]:
    """History of one module's output; the page names the module above."""
    return (
        lines(
            Line("activation_mean", path, "mean"),
            Line("activation_std", path, "std"),
            title="Activations",
        ),
        lines(
            Line("activation_zeros", path, "zeros"),
            Line("activation_saturated", path, "saturated"),
            title="Zeros and saturated",
        ),
        lines(Line("output_grad_norm", path)),
    )
