"""Several runs over each other: curves, settings that differ, results."""

from inspector.ui.compare import compare_page

compare_page()
