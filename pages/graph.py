"""The autograd graph of a step's loss, folded by module."""

from inspector.ui.context import current_run
from inspector.ui.graph_page import render

with current_run() as run:
    render(run)
