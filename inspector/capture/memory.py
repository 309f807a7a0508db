"""Memory of the process and of the CUDA device."""

from __future__ import annotations

import os

import torch

_STATM = "/proc/self/statm"


def resident_bytes() -> float | None:
    """Resident memory of this process in bytes; None where it cannot be read."""
    try:
        with open(_STATM, "rb") as file:  # noqa: PTH123  (a Path here costs as much as the read)
            return float(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, IndexError):
        pass
    try:
        import psutil  # type: ignore[import-untyped]

        return float(psutil.Process().memory_info().rss)
    except Exception:
        return None


def device_bytes(device: torch.device) -> float | None:
    """Memory allocated by PyTorch on a CUDA device; None for other devices."""
    return float(torch.cuda.memory_allocated(device)) if device.type == "cuda" else None
