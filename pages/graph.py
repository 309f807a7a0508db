"""The autograd graph of a step's loss, folded by module."""

from inspector.ui.graph_page import render

from inspector.ui.context import current_run

with current_run() as run:
    render(run)
