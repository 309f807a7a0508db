"""Snippets of autograd to run, change and understand."""

from inspector.ui.lab_page import lab_page

lab_page()
