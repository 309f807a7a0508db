"""The page of the autograd graph: picture, legend, paths, comparison, details, downloads."""

from __future__ import annotations

from contextlib import closing
from typing import Any, cast

import streamlit as st

from inspector.commands import Command
from inspector.errors import StoreError
from inspector.store.control import ControlWriter
from inspector.store.reader import Run
from inspector.ui import graph_side
from inspector.ui.context import LIVE, escape
from inspector.ui.fields import number_field
from inspector.ui.graph import graph_picture
from inspector.ui.graph_state import (
    DIRECTIONS,
    SIDES,
    GraphState,
    linked_step,
    state_of,
    write_link,
)
from inspector.views.controls import in_force
from inspector.views.graph import FoldedGraph, GraphTree, Side
from inspector.views.graph_compare import Comparison, compare
from inspector.views.graph_details import shown_as
from inspector.views.graph_dot import Marked, to_dot
from inspector.views.graph_measures import size
from inspector.views.graph_paths import (
    GradientPath,
    drawn,
    nonfinite_path,
    smallest_path,
    vanishes,
)

HEIGHT = 640


def render(run: Run) -> None:
    """Draws the page for a run; a run without a captured graph gets a sentence."""
    steps = [step for step, _ in run.documents("graph")]
    state = state_of(run.name)
    step = _head(run, state, steps)
    if run.status in LIVE:
        _await_capture(str(run.path), run.name, max(steps, default=-1))
    if step is None:
        st.info(
            "No graph has been captured yet: press *Capture the next step*."
            if run.status in LIVE
            else "No graph was captured in this run. One is taken by itself where the loss is "
            "recorded as a tensor, `watch.record(loss=loss)`, best before `backward()`."
        )
        return
    if state.other not in steps or state.other == step:
        state.other = None
    write_link(state, step)
    tree = _tree(str(run.path), step, state.other, state.side)
    backward = _tree(str(run.path), step, state.other, "backward")
    if tree is None or backward is None:
        st.error(f"The graph of step {step} cannot be read from this run.")
        return
    _summary(tree)
    state.opening = backward.opening()
    if tree.document["nodes"]:
        _graph(run, state, tree, steps, step)


def _graph(run: Run, state: GraphState, tree: GraphTree, steps: list[int], step: int) -> None:
    comparison = None if state.other is None else _comparison(str(run.path), step, state.other)
    path, on_by_default = _path(str(run.path), step)
    if comparison is not None:
        path = None
    wanted = on_by_default if state.path is None else state.path
    shown_path = path if wanted else None
    picture, side = st.columns([0.72, 0.28], gap="medium")
    folded = tree.fold(state.open_in(tree), measure=state.measure)
    way = None if shown_path is None else drawn(shown_path, folded)
    steps_compared = None if state.other is None else (step, state.other)
    dot = to_dot(folded, direction=state.direction, marked=Marked(way, steps_compared))
    tour, tour_name = _tour(folded, None if way is None else way.boxes)
    with picture:
        event = graph_picture(
            folded,
            dot,
            graph=f"{run.name}-graph-{state.direction}-{state.other is not None}",
            file=f"{run.name}-graph-{step}",
            chosen=shown_as(tree, folded, state.chosen),
            height=HEIGHT,
            key=f"graph/{run.name}",
            tour=tour,
            tour_name=tour_name,
            reveal=state.reveal,
        )
        for note in folded.notes:
            st.caption(escape(note))
    if event is not None:
        state.apply(event, tree, folded)
        st.rerun()
    with side:
        if comparison is None:
            graph_side.colours(run.name, state, tree, folded)
        if path is not None:
            graph_side.path(run.name, state, tree, path, shown=shown_path is not None)
        graph_side.compared(run.name, state, tree, comparison, [s for s in steps if s != step])
        graph_side.selected(tree, state.chosen, folded)
        graph_side.folding(tree, state)
        graph_side.downloads(run, step, dot, tree, folded, shown_path)


def _tour(folded: FoldedGraph, boxes: tuple[str, ...] | None) -> tuple[tuple[str, ...], str]:
    """Keys of what is marked, in the order in which one jumps along it."""
    if boxes is not None:
        keys = {box.id: box.key for box in folded.boxes()}
        return tuple(keys[box] for box in boxes), "on the way"
    changed = tuple(box.key for box in folded.boxes() if box.changes)
    return changed, "difference" if len(changed) == 1 else "differences"


@st.cache_resource(max_entries=6, show_spinner=False)
def _document(path: str, step: int) -> dict[str, Any] | None:
    with Run(path) as run:
        return run.document("graph", step)


@st.cache_resource(max_entries=3, show_spinner=False)
def _comparison(path: str, step: int, other: int) -> Comparison | None:
    this, that = _document(path, step), _document(path, other)
    return None if this is None or that is None else compare(this, that)


@st.cache_resource(max_entries=6, show_spinner=False)
def _tree(path: str, step: int, other: int | None, side: Side) -> GraphTree | None:
    if other is not None and (comparison := _comparison(path, step, other)) is not None:
        return GraphTree(comparison.document, side)
    document = _document(path, step)
    return None if document is None else GraphTree(document, side)


@st.cache_resource(max_entries=6, show_spinner=False)
def _path(path: str, step: int) -> tuple[GradientPath | None, bool]:
    """The way worth showing, and whether it is shown unasked."""
    document = _document(path, step)
    if document is None:
        return None, False
    if (bad := nonfinite_path(document)) is not None:
        return bad, True
    return smallest_path(document), vanishes(document)


def _head(run: Run, state: GraphState, steps: list[int]) -> int | None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.subheader("Autograd graph", width="content")
        key = f"graph/{run.name}"
        st.session_state.setdefault(f"{key}/side", state.side)
        state.side = cast("Side", st.segmented_control(
            "Side", list(SIDES), key=f"{key}/side", required=True,
            format_func=SIDES.__getitem__, label_visibility="collapsed",
            help="Backward: autograd's nodes, arrows as gradients flow. "
            "Forward: modules with shapes, arrows as data flows.",
        ))  # fmt: skip
        st.session_state.setdefault(f"{key}/direction", state.direction)
        state.direction = str(st.segmented_control(
            "Direction", list(DIRECTIONS), key=f"{key}/direction", required=True,
            format_func=DIRECTIONS.__getitem__, label_visibility="collapsed",
        ))  # fmt: skip
        step = max(steps, default=None)
        if len(steps) > 1:
            chosen = f"{key}/step"
            if (arrived := st.session_state.pop(f"{chosen}/arrived", None)) in steps:
                st.session_state[chosen] = arrived
            elif chosen not in st.session_state and (linked := linked_step(steps)) is not None:
                st.session_state[chosen] = linked
            step = st.selectbox(
                "Captured at step", sorted(steps, reverse=True), format_func=lambda s: f"step {s}",
                key=chosen, width=140, label_visibility="collapsed",
            )  # fmt: skip
        if run.status in LIVE:
            if st.button("Capture the next step", key="graph/capture"):
                _send(run, Command(name="capture_graph"), "Asked for; it appears here soon.")
            _every(run)
    return step


def _every(run: Run) -> None:
    """Captures again and again, every so many steps."""
    now = in_force(run.config, run.events()).graph_every
    label = f"every {now:,} steps" if now else "every …"
    with st.popover(label):
        wanted = number_field(
            "Capture every so many steps (0: on demand only)", now, least=0, most=1_000_000,
            key=f"graph/{run.name}/every",
        )  # fmt: skip
        if st.button("Set", key="graph/every/set", disabled=wanted == now):
            command = Command(name="set", control="graph_every", value=int(wanted))
            _send(run, command, "Set; a capture costs about twice the step it looks at.")


@st.fragment(run_every=1.5)
def _await_capture(path: str, name: str, newest: int) -> None:
    """Shows a graph as soon as it has been captured."""
    with Run(path) as run:
        arrived = max((step for step, _ in run.documents("graph")), default=-1)
    if arrived > newest:
        st.session_state[f"graph/{name}/step/arrived"] = arrived
        st.rerun()


def _send(run: Run, command: Command, done: str) -> None:
    try:
        with closing(ControlWriter(run.path)) as writer:
            writer.send(command)
    except StoreError as error:
        st.toast(escape(str(error)), icon="⚠️")
    else:
        st.toast(done)


def _summary(tree: GraphTree) -> None:
    document = tree.captured
    leaves = sum(node["accumulated"] is not None for node in document["nodes"])
    kept = document.get("kept_bytes", 0)
    shared = f" in {size(kept)} of memory" if kept else ""
    arrows = "gradients" if tree.side == "backward" else "data"
    unasked = "" if document.get("asked", True) else ", which every run captures by itself"
    st.caption(
        f"Step {document['step']}{unasked} · {len(document['nodes']):,} nodes, {leaves:,} of them "
        f"leaves · {size(document['saved_bytes'])} saved for backward{shared}. Arrows: {arrows}."
    )
    if not document["nodes"]:
        for note in document["notes"]:
            st.info(escape(note))
