"""The forms for a model and data of one's own, and the check before the start."""

OWN = "own"
"""The choice in the lists of models and data that opens a form below."""
