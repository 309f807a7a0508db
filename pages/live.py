"""The run at a glance: losses, gradient norm, learning rate, speed, memory."""

from inspector.ui.live_page import live_page

live_page()
