"""The autograd lab: snippets run in a child process, and what became of their tensors.

A snippet draws by calling ``lines``, ``vectors``, ``heatmap`` or ``paths``; outside the lab these
do nothing. Importing this package imports neither torch nor numpy.
"""

from inspector.lab.plots import heatmap, lines, paths, vectors

__all__ = ["heatmap", "lines", "paths", "vectors"]
