"""The run at a glance: losses, gradient norm, learning rate, speed, memory."""

import streamlit as st

from inspector.charts.boards import overview
from inspector.ui.board import board
from inspector.ui.context import current_run, is_live
from inspector.ui.failure import failure_panel
from inspector.ui.own.edited import source_line
from inspector.ui.presets import explain
from inspector.ui.repair import nan_panel

with current_run() as run:
    name, path, config, live = run.name, run.path, run.config, is_live(run)
    recorded = run.events()

explain(config)
failure_panel(recorded, config=config)
nan_panel(name, live=live)
source_line(path, live=live)
board(charts=overview(), run=name, key=f"overview/{name}")
st.caption(
    "Drag to zoom, double-click to reset. Vertical lines are events: hover them to read what "
    "was changed."
)
