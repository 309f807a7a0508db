"""The run at a glance: losses, gradient norm, learning rate, speed, memory."""

import streamlit as st
from inspector.ui.board import board

from inspector.charts.boards import overview
from inspector.ui.context import current_run
from inspector.ui.failure import failure_panel
from inspector.ui.presets import explain

with current_run() as run:
    name, config = run.name, run.config
    recorded = run.events()

explain(config)
failure_panel(recorded, config=config)
board(charts=overview(), run=name, key=f"overview/{name}")
st.caption(
    "Drag to zoom, double-click to reset. Vertical lines are events: hover them to read what "
    "was changed."
)
