"""Faults on purpose, for lectures."""

from inspector.ui.break_it import break_it_page

break_it_page()
