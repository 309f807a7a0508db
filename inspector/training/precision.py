"""Mixed precision: autocast around the forward pass, and loss scaling for float16."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import torch
from torch import Tensor, optim

from inspector.errors import ConfigError

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """What a step computes in.

    Attributes:
        scaler: scales the loss of fp16, so that small gradients do not vanish; else None.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        """Raises ConfigError where the device cannot compute in that precision."""
        self._device = device.type
        self._dtype = _DTYPES.get(name)
        self.scaler: torch.amp.GradScaler | None = None
        if self._dtype is None:
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                with self.autocast():
                    works = torch.is_autocast_enabled(self._device)
            except RuntimeError as error:
                raise ConfigError(f"precision {name} does not work here: {error}") from error
        if not works:
            reason = str(caught[0].message) if caught else f"{self._device} has no autocast for it"
            raise ConfigError(f"precision {name} does not work here: {reason}; choose another.")
        if name == "fp16":
            self.scaler = torch.amp.GradScaler(self._device)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Around forward passes and losses, in training and in validation."""
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device, dtype=self._dtype)

    def scaled(self, loss: Tensor) -> Tensor:
        """What ``backward()`` is called on."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def step(self, optimizer: optim.Optimizer) -> None:
        """``optimizer.step()`` with unscaled gradients; left out if one of them is not finite."""
        graded = any(
            p.grad is not None for group in optimizer.param_groups for p in group["params"]
        )
        if self.scaler is None or not graded:
            optimizer.step()
            return
        self.scaler.unscale_(optimizer)
        self.scaler.step(optimizer)
        self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)
