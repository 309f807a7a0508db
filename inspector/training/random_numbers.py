"""The state of every global random number generator, as tensors and numbers that can be saved."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def random_numbers() -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's generators; CUDA's and MPS's where in use."""
    algorithm, keys, position, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": {
            "algorithm": algorithm,
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached_gaussian": float(cached),
        },
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_numbers(state: dict[str, Any]) -> None:
    """What :func:`random_numbers` gave; generators of devices that are not here are left out."""
    numpy = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((
        numpy["algorithm"],
        numpy["keys"].numpy().astype(np.uint32),
        numpy["position"],
        numpy["has_gauss"],
        numpy["cached_gaussian"],
    ))  # fmt: skip
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for device, kept in enumerate(state.get("cuda", ())[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(kept, device)
    if torch.backends.mps.is_available() and "mps" in state:
        torch.mps.set_rng_state(state["mps"])
