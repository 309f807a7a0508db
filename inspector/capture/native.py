"""``native.c``: the hooks themselves in C, where Python's headers and a compiler are at hand.

Without it the hooks are Python, with or without the kernel; the numbers are the same.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from inspector.capture import kernel
from inspector.capture.clock import DISPATCH_NS
from inspector.quantities import ABSENT_BITS

_SOURCE = Path(__file__).with_name("native.c")
_PARTS = [
    _SOURCE.with_name(f"{part}.c")
    for part in (
        "threads",
        "kernel",
        "reading",
        "tape",
        "parameters",
        "full",
        "stretch",
        "step_hooks",
        "logbook",
    )
]


@functools.cache
def load() -> Any:
    """The extension module, built if need be; None when it cannot be had. Never raises."""
    if kernel.switched_off() or kernel.load() is None:
        return None
    try:
        library = kernel.build(_SOURCE, _PARTS, python=True)
        if library is None:
            return None
        loader = importlib.machinery.ExtensionFileLoader("inspector_native", str(library))
        spec = importlib.util.spec_from_file_location("inspector_native", library, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        set_up(module, getattr(torch.Tensor, "__dlpack_c_exchange_api__", None))  # from 2.11 on
    except Exception:
        return None
    return module


def set_up(module: Any, exchange: Any) -> None:
    """Gives the extension what it needs of PyTorch; without ``exchange`` it asks attributes."""
    module.setup(
        torch.Tensor,
        torch.nn.Parameter,
        torch.float32,
        torch.strided,
        torch.channels_last,
        OrderedDict,
        torch.is_grad_enabled,
        torch._C._current_graph_task_id,
        torch._C._functorch.peek_interpreter_stack,
        exchange,
        ABSENT_BITS,
        DISPATCH_NS,
    )
