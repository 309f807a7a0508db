"""A lesson and what became of it as one HTML page that works offline."""

from __future__ import annotations

import html
import re

import plotly.io
import streamlit as st

from inspector.lab.figures import figure
from inspector.lab.lessons import Lesson
from inspector.lab.picture import MOST_BOXES, flat, to_dot
from inspector.lab.report import GraphRecord, Report
from inspector.server.assets import PLOTLY
from inspector.ui.lab_results import about, tensor_rows
from inspector.ui.offline import Part, graph_part, page, table_part, text_part
from inspector.views import graph_dot
from inspector.views.graph import FoldedGraph, GraphTree


def export(lesson: Lesson, code: str, report: Report) -> None:
    """Draws the button; the page is made when it is pressed."""
    st.download_button(
        "HTML page of this result", lambda: lesson_page(lesson, code, report),
        f"{lesson.key}.html", "text/html", key="lab/html", on_click="ignore",
        icon=":material/download:", type="tertiary",
    )  # fmt: skip


def lesson_page(lesson: Lesson, code: str, report: Report) -> str:
    """The page: text, snippet, errors, drawings, graphs, tensors, printed output."""
    parts = [_prose("", lesson.notice), text_part("Snippet", code, code=True), *_outcome(report)]
    parts.append(_prose("Question", f"{lesson.question}\n\n{lesson.answer}"))
    return page(lesson.title, parts)


def _outcome(report: Report) -> list[Part]:
    parts = []
    if report.stopped:
        parts.append(text_part("", report.stopped))
    if report.error is not None:
        where = f" in line {report.error.line}" if report.error.line else ""
        said = "\n".join(
            filter(None, (report.error.explanation, report.error.shapes, report.error.message))
        )
        body = text_part(f"{report.error.kind}{where}", said, code=True).body
        parts.append(Part(f'<div class="error">{body}</div>'))
    for plot in report.plots:
        drawn = plotly.io.to_html(figure(plot), include_plotlyjs=False, full_html=False)
        parts.append(Part(drawn, (PLOTLY,)))
    parts += [_graph(graph) for graph in report.graphs]
    parts.append(table_part("Tensors at the end", tensor_rows(report.tensors)))
    if report.printed:
        parts.append(text_part("Printed", report.printed, code=True))
    return parts


def _graph(graph: GraphRecord) -> Part:
    document = graph.document
    if len(document["nodes"]) <= MOST_BOXES:
        folded: FoldedGraph = flat(document)
        dot = to_dot(document, folded)
    else:
        folded = GraphTree(document).fold()
        dot = graph_dot.to_dot(folded)
    facts = {
        box.id: list(filter(None, (box.title, *box.subtitle.splitlines())))
        for box in folded.boxes()
    }
    return graph_part(dot, facts, [about(graph)])


def _prose(title: str, text: str) -> Part:
    """Text with the little Markdown that lessons use: bold, italic and code."""
    head = f"<h2>{html.escape(title)}</h2>" if title else ""
    marked = html.escape(text, quote=False)
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", marked)
    marked = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", marked)
    marked = re.sub(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])", r"<i>\1</i>", marked)
    return Part(head + "".join(f"<p>{part}</p>" for part in marked.split("\n\n")))
