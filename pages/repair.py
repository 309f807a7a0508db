"""What can be done about the run: the origin of a NaN, remedies, the learning rate finder."""

from inspector.ui.repair import repair_page

repair_page()
