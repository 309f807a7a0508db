"""What watching sees of the model, what it cannot see and why, and what it costs."""

from inspector.ui.health_page import health_page

health_page()
