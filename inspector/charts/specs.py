"""One frozen dataclass for each kind of live chart.

A specification names the quantities that a chart needs; titles, units and hover texts come from
``quantities.py``. It travels to the browser as JSON, and comes back in the subscription.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from inspector.errors import ConfigError
from inspector.quantities import SeriesKey, described, is_thinned, scope_of

Reading = Literal["newest", "mean", "share", "clock"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a line chart: a series and its label in the legend.

    ``sparse`` marks what is measured once an epoch: it is drawn as it is, never smoothed. ``same``
    stands in the legend in place of a line that is equal to the first, which it would hide; where
    it differs somewhere, the line is dashed. Lines that are ``shared`` are drawn once while they
    are equal, under the labels of all.
    """

    quantity: str
    subject: str = ""
    label: str = ""
    sparse: bool = False
    same: str = ""
    shared: bool = False

    @property
    def key(self) -> SeriesKey:
        return SeriesKey(self.quantity, scope_of(self.quantity), self.subject)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChart:
    """Lines over steps.

    Attributes:
        id: name of the chart, unique on its board; also the key of its toggles in the browser.
        log: whether it starts with a logarithmic axis (the viewer can switch).
        smooth: weight of the past in the exponential moving average drawn over the raw line,
            in [0, 1); 0 draws the raw line only.
        wide: takes two columns of the board.
        about: hover text of the title.
        thinned: the schedule decides at which steps this is measured; the chart says so.
        hint: what is said instead of an empty chart once there are steps.
    """

    kind: ClassVar[str] = "line"
    id: str
    title: str
    unit: str = ""
    lines: tuple[Line, ...]
    log: bool = False
    smooth: float = 0.0
    wide: bool = False
    height: int = 220
    about: str = ""
    thinned: bool = False
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixChart:
    """A heat map: subjects (rows, first on top) × steps.

    Attributes:
        by: ``module`` combines the parameters of each module (root of the sum of squares).
        subjects: the rows in order, or empty for all that were recorded.
        log: logarithmic colours.
    """

    kind: ClassVar[str] = "matrix"
    id: str
    title: str
    quantity: str
    unit: str = ""
    by: Literal["subject", "module"] = "subject"
    subjects: tuple[str, ...] = ()
    log: bool = False
    wide: bool = True
    height: int = 0
    about: str = ""
    thinned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A single number.

    Attributes:
        reading: the newest value, the mean of the newest points, that as a share in % (of
            ``beside``, where there is one), or ``clock``: a rate per second of the steps' own time
            ``beside`` it, as it is by the clock on the wall while the run goes on.
        beside: a second quantity that the reading needs.
        control: what makes it worth showing: the number is hidden while this control is off and
            all that it would say is zero.
    """

    kind: ClassVar[str] = "number"
    id: str
    title: str
    quantity: str
    unit: str = ""
    reading: Reading = "newest"
    beside: str = ""
    control: str = ""
    about: str = ""
    thinned: bool = False


Chart = LineChart | MatrixChart | Number
_KINDS: dict[str, type[LineChart] | type[MatrixChart] | type[Number]] = {
    cls.kind: cls for cls in (LineChart, MatrixChart, Number)
}


def lines(
    *quantities: str | Line,
    id: str = "",  # noqa: A002
    title: str = "",
    smooth: float = 0.0,
    wide: bool = False,
    height: int = 220,
    hint: str = "",
) -> LineChart:
    """A line chart of quantities of the run, or of :class:`Line` objects."""
    drawn = tuple(item if isinstance(item, Line) else Line(item) for item in quantities)
    if not drawn:
        raise ConfigError("A line chart needs one quantity or more, but got none.")
    known = [described(line.quantity) for line in drawn]
    labelled = tuple(
        dataclasses.replace(
            line,
            label=line.label or _label(line, len(drawn)),
            sparse=item.when == "epoch",
        )
        for line, item in zip(drawn, known, strict=True)
    )
    return LineChart(
        id=id or "+".join(f"{line.quantity}/{line.subject}".rstrip("/") for line in drawn),
        title=title or known[0].title,
        unit=known[0].unit,
        lines=labelled,
        log=all(item.log for item in known),
        smooth=smooth,
        wide=wide,
        height=height,
        about=" ".join(item.about for item in known if item.about),
        thinned=all(is_thinned(line.quantity) for line in drawn),
        hint=hint,
    )


def matrix(
    quantity: str,
    *,
    id: str = "",  # noqa: A002
    title: str = "",
    by: Literal["subject", "module"] = "subject",
    subjects: tuple[str, ...] = (),
    wide: bool = True,
) -> MatrixChart:
    """A heat map of a quantity over all its subjects and steps."""
    known = described(quantity)
    return MatrixChart(
        id=id or f"matrix/{quantity}/{by}",
        title=title or known.title,
        quantity=quantity,
        unit=known.unit,
        by=by,
        subjects=subjects,
        log=known.log,
        wide=wide,
        about=known.about,
        thinned=is_thinned(quantity),
    )


def number(
    quantity: str,
    *,
    id: str = "",  # noqa: A002
    title: str = "",
    reading: Reading = "newest",
    beside: str = "",
    control: str = "",
    about: str = "",
) -> Number:
    """A single number of the run."""
    known = described(quantity)
    return Number(
        id=id or f"number/{quantity}/{reading}",
        title=title or known.title,
        quantity=quantity,
        unit=known.unit,
        reading=reading,
        beside=beside,
        control=control,
        about=about or known.about,
        thinned=is_thinned(quantity),
    )


def to_dict(chart: Chart) -> dict[str, Any]:
    """The specification as JSON-able fields, with its ``kind``."""
    return {"kind": chart.kind, **dataclasses.asdict(chart)}


def from_dict(fields: dict[str, Any]) -> Chart:
    """The specification that :func:`to_dict` wrote.

    Raises:
        ConfigError: the fields are not those of a chart.
    """
    fields = dict(fields)
    cls = _KINDS.get(str(fields.pop("kind", "")))
    if cls is None:
        raise ConfigError(f"Expected a chart of kind {', '.join(_KINDS)}, but got {fields!r:.80}.")
    try:
        if "lines" in fields:
            fields["lines"] = tuple(Line(**line) for line in fields["lines"])
        if "subjects" in fields:
            fields["subjects"] = tuple(str(subject) for subject in fields["subjects"])
        return cls(**fields)
    except TypeError as error:
        raise ConfigError(f"Expected the fields of a {cls.kind} chart, but got {error}.") from error


def _label(line: Line, count: int) -> str:
    name = described(line.quantity).title
    if not line.subject:
        return name
    return line.subject if count > 1 else f"{name} of {line.subject}"
