"""torchviz's own rendering of the graph, as DOT text for download."""

from __future__ import annotations

import torch
from torch import nn

NODE_LIMIT = 5_000


def torchviz_dot(loss: torch.Tensor, model: nn.Module, *, nodes: int) -> tuple[str | None, str]:
    """torchviz's DOT text and "", or None and the sentence that says why there is none.

    torchviz recurses through the graph, so long unrolled loops exceed Python's stack.
    """
    if nodes > NODE_LIMIT:
        return None, f"torchviz is left out above {NODE_LIMIT} nodes; this graph has {nodes}."
    try:
        from torchviz import make_dot

        return str(make_dot(loss, params=dict(model.named_parameters())).source), ""
    except ImportError:
        return None, "torchviz is not installed."
    except RecursionError:
        return None, "torchviz walks the graph recursively, and this one is too deep for it."
    except Exception as error:
        return None, f"torchviz failed with {type(error).__name__}: {error}"
