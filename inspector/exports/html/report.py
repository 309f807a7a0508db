"""The report of a run: charts, findings, settings, environment, events, modules, on one page."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from inspector import catalog
from inspector.config import RunConfig
from inspector.diagnosis.finding import Finding, Remedy
from inspector.diagnosis.ranks import OneRank
from inspector.events import StoredEvent
from inspector.exports.by_hand import by_hand
from inspector.exports.formats import Made, Request
from inspector.exports.html import figures as draw
from inspector.exports.html.figures import Chart, Marker
from inspector.exports.html.page import render
from inspector.numerals import short
from inspector.quantities import QUANTITIES
from inspector.store.reader import Run
from inspector.views import events as event_view
from inspector.views import findings as finding_view
from inspector.views import modules as module_view
from inspector.views.optimizers import is_setting

EVENTS = 400
PICTURES = 2  # of the evidence of a finding
OWN_CHARTS = 24
_LINES = (
    ("loss", "Loss", ("loss", "val_loss", "test_loss"), True),
    ("accuracy", "Accuracy", ("accuracy", "val_accuracy", "test_accuracy"), False),
    ("lr", "Learning rate", ("lr",), False),
    ("gradient", "Gradient norm", ("total_grad_norm", "clipped_grad_norm"), False),
    ("update", "Update ratio", ("total_update_ratio",), False),
    ("nonfinite", "Non-finite values", ("nonfinite",), False),
    ("scale", "Loss scale", ("grad_scale",), False),
    ("speed", "Samples per second", ("samples_per_s",), False),
    ("memory", "Memory", ("memory", "gpu_memory"), False),
)
_MATRICES = (
    ("grad_norm", "Gradient norm by module"),
    ("update_ratio", "Update ratio by module"),
    ("activation_std", "Activation standard deviation by module"),
    ("activation_zeros", "Share of zeros by module"),
    ("activation_saturated", "Share saturated by module"),
)
_BY_HAND = frozenset(
    ("command_applied", "command_refused", "rewound", "remedy_verdict", "fault_injected",
     "fault_revealed", "fault_healed", "lr_found")
)  # fmt: skip
_ROUTINE = frozenset(("epoch_finished", "schedule_changed", "graph_captured", "backward_captured"))
_ESSENTIAL = frozenset(
    ("model", "data", "task", "optimizer", "lr", "loss", "batch_size", "epochs", "seed", "device",
     "precision", "clip", "on_nonfinite")
)  # fmt: skip
_LOWER_IS_BETTER = frozenset(("mae", "rmse", "perplexity", "kl_divergence", "char_error_rate"))
_TONES = {"finished": "good", "stopped": "good", "running": "note", "paused": "note"}


@dataclass(frozen=True, slots=True)
class _Finding:
    card: finding_view.FindingCard
    remedies: tuple[Remedy, ...]
    charts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Table:
    title: str
    rows: list[tuple[str, str]]
    defaults: list[tuple[str, str]]


def html(request: Request) -> Made:
    """Writes the report."""
    text = report(request.run)
    request.out.write_text(text, "utf-8")
    return Made(notes=("Open it in any browser; it needs no network.",))


def report(run: Run) -> str:
    """The report as one HTML text."""
    events = run.events()
    markers = [
        Marker(stored.step, stored.event.text) for stored in events if stored.event.kind in _BY_HAND
    ]
    charts = _charts(run, markers)
    matrices = _matrices(run)
    findings, curves = _findings(run, run.findings())
    table = module_view.recorded(run)
    rows = event_view.rows(events)
    drawn = {chart.id: chart.figure for chart in (*charts, *matrices)} | curves
    return render(
        "report.html.j2",
        figures=drawn,
        name=run.name,
        status=run.status,
        tone=_TONES.get(run.status, "critical"),
        what=_what(run, events),
        figures_of_run=_key_figures(run),
        findings=findings,
        charts=charts,
        matrices=matrices,
        modules=table,
        totals=_totals(table),
        tables=_tables(run),
        interventions=event_view.rows(one for one in events if one.event.kind in _BY_HAND),
        notable=event_view.rows(
            one for one in events if one.event.kind not in _BY_HAND | _ROUTINE
        )[:EVENTS],
        events=rows[:EVENTS],
        left_out=max(0, len(rows) - EVENTS),
        footer=_footer(run),
    )  # fmt: skip


def _charts(run: Run, markers: list[Marker]) -> list[Chart]:
    recorded = run.keys()
    names = dict.fromkeys(key.quantity for key in recorded if key.scope == "run")
    settings = [name for name in names if is_setting(name)]
    rates = [name for name in settings if name.startswith("lr/")]
    made = [
        draw.line_chart(
            run, f"chart-{key}", title, (*quantities, *(rates if key == "lr" else ())),
            markers=markers, wide=wide,
        )
        for key, title, quantities, wide in _LINES
    ]  # fmt: skip
    if not run.series("nonfinite").values.any():
        made = [chart for chart in made if chart is None or chart.id != "chart-nonfinite"]
    own = [name for name in names if name not in {*QUANTITIES, *settings}][:OWN_CHARTS]
    made += [
        draw.line_chart(run, f"chart-own-{at}", name, (name,), markers=markers)
        for at, name in enumerate(own)
    ]
    return [chart for chart in made if chart is not None]


def _matrices(run: Run) -> list[Chart]:
    made = (
        draw.matrix_chart(run, f"matrix-{quantity}", quantity, title)
        for quantity, title in _MATRICES
    )
    return [chart for chart in made if chart is not None]


def _findings(run: Run, found: list[Finding]) -> tuple[list[_Finding], dict[str, Any]]:
    """Findings with the pictures of their evidence, by the id of the element they are drawn in."""
    shown: list[_Finding] = []
    figures: dict[str, Any] = {}
    for at, (finding, card) in enumerate(zip(found, finding_view.cards(found), strict=True)):
        source = OneRank(run, finding.ranks[0]) if finding.ranks else run
        drawn = [
            finding_view.picture(source, evidence, max_points=draw.POINTS)
            for evidence in finding.evidence
        ]
        pictures = [one for one in drawn if one is not None][:PICTURES]
        charts = tuple(f"evidence-{at}-{number}" for number in range(len(pictures)))
        figures |= zip(charts, map(draw.evidence, pictures), strict=True)
        shown.append(_Finding(card, finding.remedies, charts))
    return shown, figures


def _what(run: Run, events: list[StoredEvent]) -> str:
    config = run.config
    parts = [_title(config) if config else str(run.meta.get("script") or "")]
    if events:
        begin, end = events[0].wall, max(stored.wall for stored in events)
        parts.append(time.strftime("%Y-%m-%d %H:%M", time.localtime(begin)))
        parts.append(f"{_duration(end - begin)} long")
    return " · ".join(part for part in parts if part)


def _title(config: dict[str, Any]) -> str:
    model, data = str(config["model"]), str(config["data"])
    title = catalog.title(data)
    return f"{catalog.title(model)} on {title.lower() if data in catalog.DATA else title}"


def _key_figures(run: Run) -> list[tuple[str, str]]:
    figures = []
    beat = run.heartbeat
    if beat is not None:
        figures.append(("steps", f"{beat.step:,}"))
    for name, best in _judged(run):
        values = run.series(name, max_points=100_000)
        if not len(values):
            continue
        title = _of_part(name)
        figures.append((f"last {title}", _number(name, float(values.values[-1]))))
        finite = [float(v) for v in values.values if v == v and abs(v) != float("inf")]
        if best is not None and finite:
            figures.append((f"best {title}", _number(name, best(finite))))
    table = module_view.totals(module_view.recorded(run))
    if table.parameters:
        figures.append(("parameters", f"{table.parameters:,}"))
    changes = len(by_hand(run).changes)
    if changes:
        figures.append(("changes by hand", str(changes)))
    return figures


def _judged(run: Run) -> list[tuple[str, Callable[[list[float]], float] | None]]:
    """Losses and metrics of the run, and which of their values is the best one."""
    recorded = sorted(key.quantity for key in run.keys() if key.scope == "run")  # noqa: SIM118
    known = {name for names in catalog.METRICS.values() for name in names}
    further = {
        part: [
            name
            for name in recorded
            if (stem := name.removeprefix(part)) != name
            and stem != "accuracy"
            and (stem in known or catalog.places_of(stem, "classification"))
        ]
        for part in ("val_", "test_")
    }
    return [
        ("loss", None),
        ("val_loss", min),
        ("val_accuracy", max),
        *(
            (name, min if name.removeprefix("val_") in _LOWER_IS_BETTER else max)
            for name in further["val_"]
        ),
        ("test_loss", None),
        ("test_accuracy", None),
        *((name, None) for name in further["test_"]),
    ]


def _of_part(name: str) -> str:
    """``val_mean_iou`` → ``validation mean iou``."""
    if name in QUANTITIES:
        return QUANTITIES[name].title.lower()
    part, _, stem = name.partition("_")
    return f"{'validation' if part == 'val' else part} {stem.replace('_', ' ')}"


def _number(name: str, value: float) -> str:
    if value != value:
        return "NaN"
    return f"{value:.1%}" if name.endswith("accuracy") else short(value)


def _totals(table: list[module_view.ModuleRow]) -> str:
    sums = module_view.totals(table)
    return (
        f"{sums.modules} modules, {sums.parameters:,} parameters ({sums.trainable:,} trainable, "
        f"{module_view.bytes_text(sums.bytes) or '0 B'})"
    )


def _tables(run: Run) -> list[_Table]:
    """Settings, controls and environment; what is at its default is kept apart."""
    tables = []
    config = {key: value for key, value in run.config.items() if key != "code"}
    if config:
        usual = RunConfig().to_dict()
        controls = config.pop("controls", None)
        tables.append(_table("Settings", config, usual))
        if isinstance(controls, dict):
            tables.append(_table("Controls at the first step", controls, usual["controls"]))
    environment = run.document("environment")
    if environment:
        tables.append(_table("Environment", environment, {}))
    return tables


def _table(title: str, values: dict[str, Any], usual: dict[str, Any]) -> _Table:
    shown: list[tuple[str, str]] = []
    hidden: list[tuple[str, str]] = []
    for key, value in values.items():
        apart = key in usual and key not in _ESSENTIAL and _shown(value) == _shown(usual[key])
        (hidden if apart else shown).append((key, _shown(value)))
    return _Table(title, shown, hidden)


def _shown(value: Any) -> str:
    if value in (None, "", [], {}, ()):
        return "–"
    if isinstance(value, str):
        return value
    if dataclasses.is_dataclass(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _footer(run: Run) -> str:
    version = importlib.metadata.version("torch-inspector")
    now = time.strftime("%Y-%m-%d %H:%M")
    problems = " ".join(run.problems)
    return (
        f"Made by torch-inspector {version} on {now}. Lines hold at most {draw.POINTS} points; a "
        "band shows the least and the greatest value where a point stands for several steps. "
        f"{problems}"
    ).strip()
