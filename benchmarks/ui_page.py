"""The page that ``benchmarks/ui.py`` measures: eight line charts of one run."""

import os

import streamlit as st

from inspector.charts.specs import lines
from inspector.ui.board import board, strip

NAME = os.environ["BENCHMARK_RUN"]
QUANTITIES = ("clock", "loss", "lr", "total_grad_norm", "clipped_grad_norm",
              "total_update_ratio", "step_time", "memory")  # fmt: skip

st.set_page_config(layout="wide")
strip(run=NAME, key="strip")
board([lines(quantity) for quantity in QUANTITIES], run=NAME, key="board")
