"""The autograd graph of a step's loss: captured from ``grad_fn`` and turned into plain records."""

from inspector.autograd.capture import PendingGraph, capture_graph
from inspector.autograd.owners import GraphTags

__all__ = ["GraphTags", "PendingGraph", "capture_graph"]
