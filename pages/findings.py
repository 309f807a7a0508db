"""What is wrong with the run, where, since when, why, and what to do."""

from inspector.ui.findings_page import findings_page

findings_page()
