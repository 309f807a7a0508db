"""What stands beside the picture of a graph: colours, paths, differences, details, downloads."""

from __future__ import annotations

from typing import cast

import streamlit as st

from inspector.store.reader import Run
from inspector.ui.context import escape
from inspector.ui.graph_state import GraphState
from inspector.ui.offline import graph_part, page
from inspector.views.graph import FoldedGraph, GraphTree
from inspector.views.graph_compare import CHANGED, ONLY_OTHER, ONLY_THIS, Comparison
from inspector.views.graph_details import Details, details, shown_as
from inspector.views.graph_dot import BAD, CHANGES, VIRIDIS
from inspector.views.graph_measures import MEASURES, MeasureKey, short
from inspector.views.graph_paths import GradientPath

MOST_LISTED = 60


def colours(run: str, state: GraphState, tree: GraphTree, folded: FoldedGraph) -> None:
    """What the boxes are coloured by, and the scale."""
    key = f"graph/{run}/colour"
    st.session_state.setdefault(key, state.measure)
    st.selectbox(
        "Colour by", list(MEASURES), key=key, label_visibility="collapsed",
        format_func=lambda name: f"Colour: {_title(name, tree)}",
        on_change=lambda: _set_measure(state, st.session_state[key]),
    )  # fmt: skip
    if folded.low is None or folded.high is None:
        st.caption("Not measured in this capture.")
        return
    unit = "L2 norm, " if state.measure == "gradient" else ""
    st.html(
        f'<div style="height:14px;border-radius:7px;background:linear-gradient(90deg,'
        f'{",".join(VIRIDIS)})"></div>'
        f'<div style="display:flex;justify-content:space-between;font-size:0.9rem">'
        f"<span>{short(folded.low, state.measure)}</span><span>{unit}log scale</span>"
        f"<span>{short(folded.high, state.measure)}</span></div>"
        + (_key(BAD, "NaN or infinite") if state.measure == "gradient" else "")
    )
    with st.expander("Where it was measured"):
        st.caption(_where(state.measure, tree))


def _set_measure(state: GraphState, name: str) -> None:
    state.measure = cast("MeasureKey", name)


def _title(name: str, tree: GraphTree) -> str:
    if name != "time":
        return MEASURES[name].title
    return "Forward time" if tree.side == "forward" else "Backward time"


def _where(name: str, tree: GraphTree) -> str:
    text = MEASURES[name].where
    if name != "time":
        return text
    clock = tree.captured.get("clock", "host")
    by = "by events on the GPU's stream" if clock == "cuda" else "by the host's clock"
    if tree.side == "forward":
        return (
            f"Of each module's calls together, its submodules included, {by}, between its own "
            f"forward hooks. Operations outside of a module's call have no time. {text}"
        )
    return f"Of each autograd node, {by}, right before and right after the engine ran it. {text}"


def path(run: str, state: GraphState, tree: GraphTree, found: GradientPath, *, shown: bool) -> None:
    """The way of a NaN or of the smallest gradient: switch, sentence, and the way to its start."""
    label = "Way of the NaN" if found.kind == "nonfinite" else "Way to the smallest gradient"
    key = f"graph/{run}/path"
    st.session_state[key] = shown

    def switched() -> None:
        state.path = bool(st.session_state[key])

    st.toggle(label, key=key, on_change=switched)
    if not shown:
        return
    if found.kind == "nonfinite":
        st.error(escape(found.sentence))
    else:
        st.caption(escape(found.sentence))
    target = found.origin if found.kind == "nonfinite" else found.nodes[-1]
    name = "Show where it begins" if found.kind == "nonfinite" else "Show that parameter"
    if st.button(name, key="graph/origin", icon=":material/my_location:"):
        if tree.side == "forward":
            state.side = "backward"
            st.session_state.pop(f"graph/{run}/side", None)
        state.show(GraphTree(tree.captured), target)
        st.rerun()


def compared(
    run: str, state: GraphState, tree: GraphTree, comparison: Comparison | None, steps: list[int]
) -> None:
    """Choice of the step to compare with; counts and the list of what differs."""
    if not steps:
        return
    key = f"graph/{run}/with"
    st.session_state[key] = state.other

    def chosen() -> None:
        state.other = st.session_state[key]
        state.chosen = None

    st.selectbox(
        "Compare with", sorted(steps, reverse=True), index=None, key=key, on_change=chosen,
        placeholder="Compare with a step …", label_visibility="collapsed",
        format_func=lambda step: f"Compared with step {step}",
    )  # fmt: skip
    if comparison is None:
        return
    st.markdown(escape(comparison.sentence))
    if not comparison.differences:
        return
    this = tree.captured["step"]
    st.html(
        _key(CHANGES[ONLY_THIS], f"only in step {this:,}")
        + _key(CHANGES[ONLY_OTHER], f"only in step {state.other:,}")
        + _key(CHANGES[CHANGED], "other operation or shape")
    )
    _jump_list(run, state, tree, comparison)


def _jump_list(run: str, state: GraphState, tree: GraphTree, comparison: Comparison) -> None:
    listed = comparison.differences[:MOST_LISTED]
    place = st.selectbox(
        "Go to a difference", range(len(listed)), index=None, key=f"graph/{run}/difference",
        placeholder=f"Go to one of {len(comparison.differences)} differences",
        format_func=lambda number: listed[number].sentence, label_visibility="collapsed",
    )  # fmt: skip
    seen = f"graph/{run}/difference/seen"
    if place is not None and st.session_state.get(seen) != (place, state.other):
        st.session_state[seen] = (place, state.other)
        state.show(tree, listed[place].nodes[0])
        st.rerun()


def selected(tree: GraphTree, chosen: str | None, folded: FoldedGraph) -> None:
    """Facts about the selected box, or of what stands for it on this side."""
    found = None
    if chosen is not None:
        found = details(tree, chosen) or details(tree, shown_as(tree, folded, chosen) or "")
    if found is None:
        st.caption(
            "Click a box for its details; + opens, a click on the frame closes, shift-click only "
            "selects."
        )
        return
    with st.container(border=True):
        st.markdown(f"**{escape(found.title)}**")
        st.markdown("  \n".join(f":gray[{label}] {escape(value)}" for label, value in found.rows))
        if found.source:
            st.code(found.source, language="python", wrap_lines=True)
        if found.saved:
            _saved(found)


def _saved(found: Details) -> None:
    names = ("tensor", "shape", "dtype", "size", "remark")
    rows = [dict(zip(names, row, strict=True)) for row in found.saved]
    st.caption("Saved tensors")
    st.dataframe(rows, hide_index=True, width="stretch", height="content")


def folding(tree: GraphTree, state: GraphState) -> None:
    """Buttons that close folds."""
    with st.container(horizontal=True):
        opened = state.open_in(tree)
        if st.button("Fold one level", key="graph/fewer", disabled=not opened):
            state.expanded = tree.fewer(opened)
            st.rerun()
        if st.button("Opening view", key="graph/opening"):
            state.expanded = None
            st.rerun()


def downloads(
    run: Run, step: int, dot: str, tree: GraphTree, folded: FoldedGraph, way: GradientPath | None
) -> None:
    """This view as DOT and as a page of its own; torchviz's rendering of the whole graph."""
    with st.popover("Download", icon=":material/download:"):
        st.caption("SVG and PNG: above the picture.")
        st.download_button(
            "HTML page of this view", lambda: _offline(run.name, dot, tree, folded, way),
            f"{run.name}-graph-{step}.html", "text/html",
            key="graph/html", width="stretch", on_click="ignore",
        )  # fmt: skip
        st.download_button(
            "DOT of this view", dot, f"{run.name}-graph-{step}.dot", "text/vnd.graphviz",
            key="graph/dot", width="stretch", on_click="ignore",
        )  # fmt: skip
        text = run.path / "blobs" / f"graph-{tree.captured['step']}.torchviz.dot"
        if text.is_file():
            st.download_button(
                "torchviz's own DOT", text.read_bytes(), text.name, "text/vnd.graphviz",
                key="graph/torchviz", width="stretch", on_click="ignore",
            )  # fmt: skip
        else:
            reason = tree.captured.get("torchviz") or "torchviz's view was not stored."
            st.caption(escape(reason))


def _offline(
    run: str, dot: str, tree: GraphTree, folded: FoldedGraph, way: GradientPath | None
) -> str:
    measure = MEASURES[folded.measure]
    lines = [
        f"Step {tree.captured['step']}, model {tree.captured['model']}, "
        f"{len(tree.captured['nodes']):,} nodes. Arrows point where "
        + ("gradients flow." if tree.side == "backward" else "data flows.")
    ]
    if way is not None:
        lines.append(way.sentence)
    if folded.low is not None and folded.high is not None:
        ends = f"{short(folded.low, folded.measure)} to {short(folded.high, folded.measure)}"
        lines.append(
            f"Colour: {_title(folded.measure, tree).lower()} ({measure.unit}, log scale), from "
            f"{ends}, dark to yellow. {_where(folded.measure, tree)}"
        )
    facts = {}
    for box in folded.boxes():
        found = details(tree, box.key)
        rows = [*found.rows, *([("source", found.source)] if found.source else [])] if found else []
        facts[box.id] = [box.title, *(f"{label}: {value}" for label, value in rows)]
    return page(f"Graph of {run}", [graph_part(dot, facts, lines)])


def _key(colour: str, text: str) -> str:
    return (
        '<div style="font-size:0.9rem;margin-top:0.3rem"><span style="display:inline-block;'
        f'width:1.1em;height:0.8em;border-radius:3px;background:{colour}"></span> {text}</div>'
    )
