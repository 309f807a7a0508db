"""Our own code is not compiled, though ``torch.compile`` may come across it.

A script that compiles its whole step, or ``optimizer.step()``, runs our hooks where the graph
breaks, in the thread whose frames PyTorch offers to its compiler.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from torch._C._dynamo import eval_frame

F = TypeVar("F", bound=Callable[..., Any])


def never_compiled(function: F) -> F:
    """Leaves a function, and whatever it calls, out of every compilation; costs its calls nothing.

    Versions of PyTorch without that switch compile it as they do any other code.
    """
    with contextlib.suppress(AttributeError):
        skip = eval_frame._FrameAction.SKIP
        strategy = eval_frame._FrameExecStrategy(skip, skip)
        eval_frame.set_code_exec_strategy(function.__code__, strategy)
    return function
