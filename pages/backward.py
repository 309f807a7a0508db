"""One backward pass, stepped through node by node."""

from inspector.ui.replay_page import replay_page

replay_page()
