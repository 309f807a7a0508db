"""What became of a snippet: error, drawings, graph, tensors, printed output."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import streamlit as st

from inspector.lab.figures import figure
from inspector.lab.picture import MOST_BOXES, flat, numbers, to_dot
from inspector.lab.report import GraphRecord, Report, SnippetError, TensorRecord
from inspector.ui import presenter
from inspector.ui.context import escape
from inspector.ui.graph import graph_picture
from inspector.views import graph_dot
from inspector.views.graph import FoldedGraph, GraphTree
from inspector.views.graph_measures import size

_SHORT = 420
_TALL = 560


def results(report: Report, *, key: str) -> None:
    """Draws a report; ``key`` keeps the choices of its viewer."""
    if report.stopped:
        st.warning(escape(report.stopped), icon=":material/timer_off:")
    if report.error is not None:
        _error(report.error)
    for number, plot in enumerate(report.plots):
        drawn = figure(plot, scale=1.25 if presenter.on() else 1.0)
        st.plotly_chart(drawn, key=f"{key}/plot/{number}", config={"displaylogo": False})
    if report.graphs:
        _graphs(report.graphs, key)
    if report.tensors:
        _tensors(report.tensors)
    if report.printed:
        st.caption("Printed")
        st.code(report.printed, language=None, wrap_lines=True)
    for note in report.notes:
        st.caption(escape(note))
    if not report.stopped:
        st.caption(f"Ran in {report.seconds * 1000:.0f} ms.")


def _error(error: SnippetError) -> None:
    where = f" in line {error.line}" if error.line else ""
    st.error(f"**{escape(error.kind)}{where}.** {escape(error.explanation)}")
    if error.shapes:
        st.code(error.shapes, language=None)
    st.code(error.message, language=None, wrap_lines=True)


def _graphs(graphs: tuple[GraphRecord, ...], key: str) -> None:
    chosen = len(graphs) - 1
    if len(graphs) > 1:
        labels = [f"{number + 1} · line {graph.line}" for number, graph in enumerate(graphs)]
        label = st.segmented_control(
            "Graph", labels, default=labels[-1], required=True, key=f"{key}/graphs/{len(graphs)}",
            label_visibility="collapsed",
        )  # fmt: skip
        chosen = labels.index(label)
    graph = graphs[chosen]
    document = graph.document
    count = len(document["nodes"])
    st.caption(about(graph))
    if count <= MOST_BOXES:
        folded = flat(document)
        dot = to_dot(document, folded)
        _picture(folded, dot, document, _SHORT if count <= 8 else _TALL, key)
    else:
        _folded(document, key)


def about(graph: GraphRecord) -> str:
    """What the picture of a graph shows."""
    count = len(graph.document["nodes"])
    return (
        f"{graph.label.capitalize()}: {count:,} node{'s' if count != 1 else ''}, "
        f"{size(graph.document['saved_bytes'])} saved. Arrows follow the forward pass, gradients "
        "flow against them. Colour: size of the gradient, from dark to yellow."
    )


def _folded(document: dict[str, Any], key: str) -> None:
    """A larger graph, folded; clicks open and close."""
    tree = GraphTree(document)
    kept = st.session_state.setdefault(f"{key}/open/{len(document['nodes'])}", tree.opening())
    folded = tree.fold(kept)
    event = _picture(folded, graph_dot.to_dot(folded), document, _TALL, key)
    if event is not None:
        smaller = tree.fewer(folded.expanded) if event.too_slow else None
        opened = folded.expanded ^ {event.key} if event.toggle else folded.expanded
        st.session_state[f"{key}/open/{len(document['nodes'])}"] = smaller or opened
        if event.too_slow or event.toggle:
            st.rerun()


def _picture(folded: FoldedGraph, dot: str, document: dict[str, Any], height: int, key: str) -> Any:
    shape = json.dumps([[node["op"] for node in document["nodes"]], document["edges"]])
    same = hashlib.sha256(shape.encode()).hexdigest()[:12]
    return graph_picture(
        folded, dot, graph=f"lab-{same}", file=key.replace("/", "-"), chosen=None, height=height,
        key=f"{key}/picture",
    )  # fmt: skip


def _tensors(tensors: tuple[TensorRecord, ...]) -> None:
    st.caption("Tensors at the end")
    st.dataframe(tensor_rows(tensors), hide_index=True, width="stretch", height="content")


def tensor_rows(tensors: tuple[TensorRecord, ...]) -> list[dict[str, Any]]:
    """The tensors as rows of a table."""
    return [
        {
            "name": tensor.name,
            "value": numbers(tensor.value) or _nested(tensor.value) or tensor.statistics,
            ".grad": numbers(tensor.gradient)
            or _nested(tensor.gradient)
            or tensor.gradient_statistics
            or "None",
            "shape": "×".join(map(str, tensor.shape)) or "scalar",
            "requires_grad": tensor.requires_grad,
            "grad_fn": tensor.grad_fn or ("leaf" if tensor.leaf else ""),
        }
        for tensor in tensors
    ]


def _nested(value: Any) -> str:
    """A small matrix on one line; "" for what is larger."""
    if isinstance(value, list) and len(str(value)) < 160:
        parts = [numbers(item) or _nested(item) for item in value]
        return f"[{', '.join(parts)}]" if all(parts) else ""
    return ""
