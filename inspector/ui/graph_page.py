"""The page of the autograd graph: picture, legend, details, downloads."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import streamlit as st

from inspector.commands import Command
from inspector.errors import StoreError
from inspector.store.control import ControlWriter
from inspector.store.reader import Run
from inspector.ui.context import LIVE, escape
from inspector.ui.graph import GraphEvent, graph_picture
from inspector.views.graph import FoldedGraph, GraphTree
from inspector.views.graph_details import Details, details, size
from inspector.views.graph_dot import BAD, VIRIDIS, number, to_dot

HEIGHT = 640
_DIRECTIONS = {"Top down": "TB", "Left to right": "LR"}


def render(run: Run) -> None:
    """Draws the page for a run; a run without a captured graph gets a sentence."""
    steps = [step for step, _ in run.documents("graph")]
    step, direction = _head(run, steps)
    if run.status in LIVE:
        _await_capture(str(run.path), run.name, max(steps, default=-1))
    if step is None:
        st.info(
            "No graph has been captured yet: ask for one with the button while the run goes on."
        )
        return
    tree = _tree(str(run.path), step)
    if tree is None:
        st.error(f"The graph of step {step} cannot be read from this run.")
        return
    _summary(tree)
    if not tree.document["nodes"]:
        return
    state = _State(f"graph/{run.name}/state", tree)
    picture, side = st.columns([0.74, 0.26], gap="medium")
    folded = tree.fold(state.expanded)
    dot = to_dot(folded, direction=direction)
    with picture:
        event = graph_picture(
            folded,
            dot,
            graph=f"{run.name}-graph-{direction}",
            file=f"{run.name}-graph-{step}",
            chosen=state.chosen,
            height=HEIGHT,
            key=f"graph/{run.name}",
        )
        _notes(folded)
    if event is not None:
        state.apply(event, folded)
        st.rerun()
    with side:
        _legend(folded)
        _selected(tree, state.chosen)
        _folding(tree, state)
        _downloads(run, step, dot, tree)


class _State:
    """Open folds and the selected box, kept from graph to graph as long as the browser tab."""

    def __init__(self, key: str, tree: GraphTree) -> None:
        self._tree = tree
        self._kept: dict[str, Any] = st.session_state.setdefault(
            key, {"expanded": tree.opening(), "chosen": None}
        )

    @property
    def expanded(self) -> frozenset[str]:
        return frozenset(self._kept["expanded"]) & self._tree.folds.keys()

    @expanded.setter
    def expanded(self, keys: frozenset[str]) -> None:
        self._kept["expanded"] = keys

    @property
    def chosen(self) -> str | None:
        chosen = self._kept["chosen"]
        return None if chosen is None else str(chosen)

    def apply(self, event: GraphEvent, shown: FoldedGraph) -> None:
        if event.too_slow:
            self.expanded = self._tree.fewer(shown.expanded)
            return
        self._kept["chosen"] = event.key
        if event.toggle:
            self.expanded = shown.expanded ^ {event.key}


@st.cache_resource(max_entries=6, show_spinner=False)
def _tree(path: str, step: int) -> GraphTree | None:
    with Run(path) as run:
        document = run.document("graph", step)
    return None if document is None else GraphTree(document)


def _head(run: Run, steps: list[int]) -> tuple[int | None, str]:
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.subheader("Autograd graph", width="content")
        label = st.segmented_control(
            "Direction", list(_DIRECTIONS), default="Top down", required=True,
            key="graph/direction", label_visibility="collapsed",
        )  # fmt: skip
        step = max(steps, default=None)
        if len(steps) > 1:
            key = f"graph/{run.name}/step"
            if (arrived := st.session_state.pop(f"{key}/arrived", None)) in steps:
                st.session_state[key] = arrived
            step = st.selectbox(
                "Captured at step", sorted(steps, reverse=True), format_func=lambda s: f"step {s}",
                key=key, width=160, label_visibility="collapsed",
            )  # fmt: skip
        if run.status in LIVE and st.button("Capture the next step", key="graph/capture"):
            _ask_for_capture(run)
    return step, _DIRECTIONS[label]


@st.fragment(run_every=1.5)
def _await_capture(path: str, name: str, newest: int) -> None:
    """Shows a graph as soon as it has been captured."""
    with Run(path) as run:
        arrived = max((step for step, _ in run.documents("graph")), default=-1)
    if arrived > newest:
        st.session_state[f"graph/{name}/step/arrived"] = arrived
        st.rerun()


def _ask_for_capture(run: Run) -> None:
    try:
        with closing(ControlWriter(run.path)) as writer:
            writer.send(Command(name="capture_graph"))
    except StoreError as error:
        st.toast(escape(str(error)), icon="⚠️")
    else:
        st.toast("Asked for; it appears here when the step is done.")


def _summary(tree: GraphTree) -> None:
    document = tree.document
    leaves = sum(node["accumulated"] is not None for node in document["nodes"])
    st.caption(
        f"Step {document['step']} · {len(document['nodes']):,} nodes, {leaves:,} of them leaves · "
        f"{size(document['saved_bytes'])} saved for backward. Arrows follow the forward pass; "
        "gradients flow against them. Click a box to open it, its frame to close it."
    )
    if not document["nodes"]:
        for note in document["notes"]:
            st.info(escape(note))


def _notes(folded: FoldedGraph) -> None:
    for note in folded.notes:
        st.caption(escape(note))


def _legend(folded: FoldedGraph) -> None:
    st.markdown("**Gradient norm**")
    if folded.low is None or folded.high is None:
        st.caption("Not measured in this capture.")
        return
    st.html(
        f'<div style="height:14px;border-radius:7px;background:linear-gradient(90deg,'
        f'{",".join(VIRIDIS)})"></div>'
        f'<div style="display:flex;justify-content:space-between;font-size:0.9rem">'
        f"<span>{number(folded.low)}</span><span>log scale</span>"
        f"<span>{number(folded.high)}</span></div>"
        f'<div style="font-size:0.9rem;margin-top:0.3rem"><span style="display:inline-block;'
        f'width:1.1em;height:0.8em;border-radius:3px;background:{BAD}"></span> NaN or infinite'
        "</div>"
    )


def _selected(tree: GraphTree, chosen: str | None) -> None:
    found = None if chosen is None else details(tree, chosen)
    if found is None:
        st.caption("Click a box for its details; shift-click selects a fold without opening it.")
        return
    with st.container(border=True):
        st.markdown(f"**{escape(found.title)}**")
        st.markdown("  \n".join(f":gray[{label}] {escape(value)}" for label, value in found.rows))
        if found.saved:
            _saved(found)


def _saved(found: Details) -> None:
    names = ("tensor", "shape", "dtype", "size", "remark")
    rows = [dict(zip(names, row, strict=True)) for row in found.saved]
    st.caption("Saved tensors")
    st.dataframe(rows, hide_index=True, width="stretch", height="content")


def _folding(tree: GraphTree, state: _State) -> None:
    with st.container(horizontal=True):
        if st.button("Fold one level", key="graph/fewer", disabled=not state.expanded):
            state.expanded = tree.fewer(state.expanded)
            st.rerun()
        if st.button("Opening view", key="graph/opening"):
            state.expanded = tree.opening()
            st.rerun()


def _downloads(run: Run, step: int, dot: str, tree: GraphTree) -> None:
    st.download_button(
        "DOT of this view", dot, f"{run.name}-graph-{step}.dot", "text/vnd.graphviz",
        key="graph/dot", width="stretch", on_click="ignore",
    )  # fmt: skip
    text = run.path / "blobs" / f"graph-{tree.document['step']}.torchviz.dot"
    if text.is_file():
        st.download_button(
            "torchviz's own DOT", text.read_bytes(), text.name, "text/vnd.graphviz",
            key="graph/torchviz", width="stretch", on_click="ignore",
        )  # fmt: skip
    else:
        st.caption(escape(tree.document.get("torchviz") or "torchviz's view was not stored."))
