"""What one browser tab looks at in a graph, and the link that reopens exactly that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import streamlit as st

from inspector.ui.graph import GraphEvent
from inspector.views.graph import FoldedGraph, GraphTree, Side
from inspector.views.graph_measures import MEASURES, MeasureKey

MOST_LINKED = 60  # open folds that a link holds
DIRECTIONS = {"TB": "↓", "LR": "→"}
SIDES: dict[str, str] = {"backward": "Backward", "forward": "Forward"}


@dataclass(slots=True)
class GraphState:
    """Kept from graph to graph of a run, as long as the tab.

    Attributes:
        opening: folds that are open at first, on both sides.
        expanded: open folds, those of the other side and of other steps too; None for the opening
            view.
        chosen: key of the selected box.
        path: whether the way of a gradient is shown; None where the graph decides.
        other: step that is compared with, or None.
        reveal: box to be moved to the middle and the number of that wish.
    """

    opening: frozenset[str] = frozenset()
    side: Side = "backward"
    measure: MeasureKey = "gradient"
    direction: str = "TB"
    expanded: frozenset[str] | None = None
    chosen: str | None = None
    path: bool | None = None
    other: int | None = None
    reveal: tuple[str, int] | None = None

    @property
    def wanted(self) -> frozenset[str]:
        return self.opening if self.expanded is None else self.expanded

    def open_in(self, tree: GraphTree) -> frozenset[str]:
        """The open folds as far as this side has them."""
        return self.wanted & tree.folds.keys()

    def apply(self, event: GraphEvent, tree: GraphTree, shown: FoldedGraph) -> None:
        """What a click, or a layout that took too long, changes."""
        before = self.wanted
        if event.too_slow:
            self.expanded = tree.fewer(shown.expanded)
            return
        self.chosen = event.key
        if event.toggle:
            refused = (before & tree.folds.keys()) - shown.expanded
            kept = {key for key in refused if not tree.opens(tree.folds[key])}
            self.expanded = (before - (refused - kept)) ^ {event.key}

    def show(self, tree: GraphTree, node: int) -> None:
        """Selects a node, opens what it is folded in, and moves it to the middle."""
        inside = {
            key
            for key, fold in tree.folds.items()
            if any(tree.document["nodes"][member]["id"] == node for member in fold.members())
        }
        self.expanded = self.wanted | inside
        self.chosen = f"o:{node}"
        self.reveal = (self.chosen, self.reveal[1] + 1 if self.reveal else 1)


def state_of(run: str) -> GraphState:
    """The tab's state for a run; at first what the link names."""
    key = f"graph/{run}/state"
    if key not in st.session_state:
        link = st.query_params
        side, measure = link.get("side", ""), link.get("colour", "")
        direction, path = link.get("direction", ""), link.get("path", "")
        other = link.get("with", "")
        st.session_state[key] = GraphState(
            side=cast("Side", side) if side in SIDES else "backward",
            measure=cast("MeasureKey", measure) if measure in MEASURES else "gradient",
            direction=direction if direction in DIRECTIONS else "TB",
            expanded=frozenset(link.get_all("open")) if "open" in link else None,
            chosen=link.get("box"),
            path={"1": True, "0": False}.get(path),
            other=int(other) if other.isdecimal() else None,
        )
    state: GraphState = st.session_state[key]
    return state


def linked_step(steps: list[int]) -> int | None:
    """The step that the link names, if it was captured."""
    wanted = st.query_params.get("graph", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) in steps else None


def write_link(state: GraphState, step: int) -> None:
    """Keeps the address bar at exactly this view."""
    opened = None if state.expanded is None else sorted(state.expanded)
    wanted: dict[str, str | list[str] | None] = {
        "graph": str(step),
        "side": state.side if state.side != "backward" else None,
        "colour": state.measure if state.measure != "gradient" else None,
        "direction": state.direction if state.direction != "TB" else None,
        "box": state.chosen,
        "path": None if state.path is None else str(int(state.path)),
        "with": None if state.other is None else str(state.other),
        "open": opened if opened is not None and len(opened) <= MOST_LINKED else None,
    }
    for name, value in wanted.items():
        now = st.query_params.get_all(name)
        if value is None or value == []:
            if now:
                del st.query_params[name]
        elif now != (value if isinstance(value, list) else [value]):
            st.query_params[name] = value
