"""The page that lays runs over each other: curves, settings that differ, results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import streamlit as st

from inspector.errors import StoreError
from inspector.numerals import short
from inspector.store.layout import run_path
from inspector.store.reader import Run
from inspector.ui import context
from inspector.ui.compare_board import Overlay, compare_board
from inspector.ui.compare_parallel import coordinates
from inspector.ui.fork import keep
from inspector.ui.tables import is_wide, table_height
from inspector.views import compare, compare_settings
from inspector.views.compare import Axis, Curve, Recorded
from inspector.views.compare_parallel import uprights
from inspector.views.compare_settings import Difference

_EVERY = "2s"
_MOST = 40
_FEW = 5  # runs that stand beside each other in a table
_AXES: dict[Axis, str] = {"step": "Steps", "epoch": "Epochs", "time": "Wall time"}


def compare_page() -> None:
    """Draws the page."""
    st.subheader("Compare")
    known = [summary.name for summary in context.summaries()]
    if len(known) < 2:
        st.info(
            "Comparing takes two runs, and this folder holds "
            f"{'one' if known else 'none'} yet. Start another one on the Start page, or go on from "
            "a checkpoint on the Runs page.",
            icon=":material/stacked_line_chart:",
        )
        return
    names = _chosen(known)
    st.query_params["runs"] = names
    if len(names) < 2:
        st.info(
            "Choose two runs or more above, or mark them on the Runs page.",
            icon=":material/stacked_line_chart:",
        )
        return
    if len(names) > compare.MOST_RUNS:
        st.caption(
            f"The charts show the first {compare.MOST_RUNS} of {len(names)}; tables and parallel "
            "coordinates all."
        )
    with ExitStack() as stack:
        runs = _open(stack, names)
        live = any(context.is_live(run) for run in runs)
        quantities, axis = _choices(compare.recorded(runs))
        pairs = _pairs(runs)
    st.fragment(_moving, run_every=_EVERY if live else None)(names, quantities, axis, live)
    for pair in pairs:
        keep(pair)


def _pairs(runs: list[Run]) -> list[list[str]]:
    """Each fork that has ended with its parent, if that is compared as well and has ended."""
    ended = [run.name for run in runs if not context.is_live(run)]
    pairs = []
    for run in runs:
        origin = compare_settings.origin(run.events(rank=0))
        parent = compare_settings.parent(origin, runs, run)
        if parent is not None and {run.name, parent.name} <= set(ended):
            pairs.append([parent.name, run.name])
    return pairs


def _moving(names: list[str], quantities: list[str], axis: Axis, was_live: bool) -> None:
    """What follows the runs while they go on."""
    with ExitStack() as stack:
        runs = _open(stack, names)
        if not runs:
            st.warning("None of these runs can be read.")
            return
        _overlays(runs[: compare.MOST_RUNS], quantities, axis)
        differences = compare_settings.differing([compare_settings.settings(run) for run in runs])
        _settings(runs, differences)
        _results(runs, quantities, differences)
        _by_hand(runs)
        live = any(context.is_live(run) for run in runs)
    if was_live and not live:
        st.rerun()  # nothing moves any more, and one of a fork and its parent can be kept


def _chosen(known: list[str]) -> list[str]:
    """The runs that the address names, and the field that changes them."""
    if "compare/runs" not in st.session_state:
        st.session_state["compare/runs"] = st.session_state.get("compare/kept", [])
        if "runs" in st.query_params:
            st.session_state["compare/runs"] = st.query_params.get_all("runs")
    # A run may have been deleted, or named in an old link.
    present = [name for name in st.session_state["compare/runs"] if name in known]
    st.session_state["compare/runs"] = present
    chosen = st.multiselect(
        "Runs",
        known,
        key="compare/runs",
        max_selections=_MOST,
        placeholder="Choose runs",
        label_visibility="collapsed",
    )
    st.session_state["compare/kept"] = chosen
    return list(chosen)


def _open(stack: ExitStack, names: Sequence[str]) -> list[Run]:
    runs = []
    for name in names:
        try:
            runs.append(stack.enter_context(Run(run_path(context.runs_dir(), name))))
        except StoreError as error:
            st.error(context.escape(str(error)))
    return runs


def _choices(found: list[Recorded]) -> tuple[list[str], Axis]:
    titles = {item.quantity: item.title for item in found}
    names = list(titles)
    key = "compare/quantities"
    kept = st.session_state.get(key, compare.usual(found))
    st.session_state[key] = [name for name in kept if name in names]
    left, right = st.columns([5, 2], vertical_alignment="bottom")
    with left:
        chosen = st.multiselect(
            "Curves",
            names,
            format_func=lambda name: titles[name],
            key=key,
        )
    with right:
        axis = st.segmented_control(
            "Along",
            list(_AXES),
            default="step",
            required=True,
            format_func=lambda name: _AXES[name],
            key="compare/axis",
            help="Wall time counts from each run's first recorded step and includes pauses.",
        )
    return chosen, axis


def _overlays(runs: list[Run], quantities: list[str], axis: Axis) -> None:
    labels = [run.name for run in runs]
    overlays: list[Overlay] = []
    without: dict[str, list[str]] = {}
    for quantity in quantities:
        curves = [compare.curve(run, quantity, axis) for run in runs]
        title = compare.title(quantity)
        for run, curve in zip(runs, curves, strict=True):
            if curve is None:
                without.setdefault(run.name, []).append(title.lower())
        if any(curve is not None for curve in curves):
            wide = len(quantities) == 1 or not overlays
            overlays.append(Overlay(quantity, title, quantity, curves, labels, wide=wide))
    marks, gaps = _forks(runs, overlays, axis)
    if overlays:
        compare_board([*overlays, *gaps], axis=axis, marks=marks, key="compare/board")
    for name, missing in without.items():
        why = " against epochs" if axis == "epoch" else ""
        *first, last = missing
        listed = f"{', '.join(first)} or {last}" if first else last
        st.caption(context.escape(f"{name} has no {listed}{why}."))


def _forks(
    runs: list[Run], overlays: list[Overlay], axis: Axis
) -> tuple[list[tuple[float, str]], list[Overlay]]:
    """Where a run left its parent, and by how much their first curves differ since."""
    marks: list[tuple[float, str]] = []
    gaps: list[Overlay] = []
    for place, run in enumerate(runs):
        origin = compare_settings.origin(run.events(rank=0))
        source = compare_settings.parent(origin, runs, run)
        if origin is None or source is None or axis == "time":
            continue  # each run has a clock of its own
        parent = runs.index(source)
        x = _at(source, axis, origin.at)
        if x is None:
            continue
        marks.append((x, f"{run.name}: {origin.text}"))
        if overlays:
            first = overlays[0]
            pair = first.curves[parent], first.curves[place]
            gap = compare.gap(pair[0], pair[1], x) if pair[0] and pair[1] else None
            if gap is not None:
                gaps.append(_gap(first, gap, f"{run.name} − {source.name}", place))
    return marks, gaps


def _gap(overlay: Overlay, gap: Curve, label: str, hue: int) -> Overlay:
    title = f"{overlay.title}: difference since the fork"
    return Overlay(f"gap/{label}", title, overlay.quantity, [gap], [label], [hue])


def _at(run: Run, axis: Axis, step: int) -> float | None:
    import numpy as np

    x = compare.along(run, axis, np.array([step], np.int64))
    return None if x is None else float(x[0])


def _settings(runs: list[Run], differences: list[Difference]) -> None:
    st.markdown("#### Settings that differ")
    if not differences:
        st.caption(
            "None: the runs have the same settings."
            if all(run.config for run in runs)
            else "None that are known. Of a script, optimizer, learning rate, momentum and weight "
            "decay are recorded; others are compared if they are given to watch(…, config=…)."
        )
        return
    rows = [
        {"setting": item.path}
        | {
            run.name: compare_settings.shown(value)
            for run, value in zip(runs, item.values, strict=True)
        }
        for item in differences
    ]
    wide = is_wide(rows, {name: name for name in rows[0]})
    height = table_height(len(rows), most=16, bar=wide)
    st.dataframe(rows, hide_index=True, key="compare/settings", height=height, column_config={
        "setting": st.column_config.TextColumn("Setting", pinned=True, width="medium"),
    })  # fmt: skip


def _results(runs: list[Run], quantities: list[str], differences: list[Difference]) -> None:
    st.markdown("#### Results")
    outcomes = {
        quantity: [compare.outcome(run, quantity) for run in runs] for quantity in quantities
    }
    rows: list[dict[str, Any]] = []
    for place, run in enumerate(runs):
        beat = run.heartbeat
        row: dict[str, Any] = {
            "run": run.name,
            "status": run.status,
            "steps": beat.step if beat else None,
        }
        for quantity, found in outcomes.items():
            outcome, title = found[place], compare.title(quantity)
            row[f"{title}, last"] = outcome.last if outcome else None
            if any(other and other.best is not None for other in found):
                row[f"{title}, best"] = _best(outcome)
        rows.append(row)
    _table(rows)
    results = []
    for quantity, found in outcomes.items():
        kind = "best" if compare.better(quantity) else "last"
        values = [getattr(item, kind) if item else None for item in found]
        results.append((f"{compare.title(quantity)}, {kind}", values))
    axes = uprights(differences, results)
    if len(axes) < 2:
        return
    coordinates([run.name for run in runs], axes)


def _table(rows: list[dict[str, Any]]) -> None:
    """A column for each of a few runs, as their settings have; a row for each of many, to sort."""
    if len(rows) <= _FEW:
        titles = {"status": "Status", "steps": "Steps"}
        upright = [
            {"result": titles.get(name, name)} | {row["run"]: _shown(row[name]) for row in rows}
            for name in rows[0]
            if name != "run"
        ]
        height = table_height(len(upright), most=16)
        st.dataframe(upright, hide_index=True, key="compare/results", height=height, column_config={
            "result": st.column_config.TextColumn("Result", pinned=True),
        })  # fmt: skip
        return
    numbers = {}
    for name in (name for name in rows[0] if name.endswith(", last")):
        if all(row[name] is None or math.isfinite(row[name]) for row in rows):
            numbers[name] = st.column_config.NumberColumn(format="%.5g")
            continue
        for row in rows:  # a table of numbers shows NaN like nothing at all
            row[name] = _shown(row[name])
    wide = is_wide(rows, {name: name for name in rows[0]})
    height = table_height(len(rows), most=16, bar=wide)
    st.dataframe(rows, hide_index=True, key="compare/results", height=height, placeholder="–",
                 column_config={
        "run": st.column_config.TextColumn("Run", pinned=True),
        "status": "Status",
        "steps": st.column_config.NumberColumn("Steps", format="localized"),
        **numbers,
    })  # fmt: skip


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else short(value, 5)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _best(outcome: compare.Outcome | None) -> str:
    if outcome is None or outcome.best is None:
        return "–"
    return f"{short(outcome.best)}  (step {outcome.best_step:,})"


def _by_hand(runs: list[Run]) -> None:
    done = [
        item
        for run in runs
        for item in compare_settings.interventions(run.name, run.events(rank=0))
    ]
    if not done:
        return
    st.markdown("#### Done by hand")
    rows = [{"run": item.run, "step": item.step, "what": item.what} for item in done]
    st.dataframe(rows, hide_index=True, key="compare/by-hand", column_config={
        "run": "Run",
        "step": st.column_config.NumberColumn("Step", format="localized"),
        "what": st.column_config.TextColumn("What", width="large"),
    })  # fmt: skip
