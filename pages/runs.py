"""All runs, live and finished, newest first."""

from inspector.ui.runs_page import runs_page

runs_page()
