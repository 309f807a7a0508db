"""What keeps luck out of timings on the CPU."""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's mallopt()


def keep_memory() -> None:
    """Lets the C library keep what is freed, where it is glibc; to be called first of all.

    By default it gives the end of its heap back, and PyTorch's next tensor lies in fresh pages,
    each of which costs a page fault. How much that is depends on where blocks happen to lie: up to
    a third of a step of ResNet-18, differently in each process, and for each contender in one.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 256 << 20)
        mallopt(_MMAP_THRESHOLD, 32 << 20)
