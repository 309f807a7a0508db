"""Is every gradient finite? Asked before each step, so it must cost next to nothing."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class GradientCheck:
    """Exact: looks at every value; one call into PyTorch where the gradients are ordinary."""

    def __init__(self) -> None:
        self._found: Tensor | None = None
        self._one: Tensor | None = None
        self._ordinary = True

    def start(self, gradients: list[Tensor]) -> Tensor | bool:
        """False or True where that is known at once; else a device scalar, above 0 if bad."""
        if not gradients:
            return False
        device = gradients[0].device
        if not self._ordinary or any([g.requires_grad for g in gradients]):  # noqa: C419
            return has_nonfinite(gradients)
        if self._found is None or self._found.device != device:
            self._found = torch.zeros((), device=device)
            self._one = torch.ones((), device=device)
        found, one = self._found, self._one
        assert one is not None
        # GradScaler's own pass over all gradients; times one, it leaves them as they are.
        try:
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, one)
        except RuntimeError:  # sparse, complex, or on several devices
            self._ordinary = False
            return has_nonfinite(gradients)
        if device.type == "cuda":
            taken = found.clone()
            found.zero_()
            return taken
        if found.item() == 0:
            return False
        found.zero_()
        return True


def has_nonfinite(tensors: Iterable[Tensor]) -> bool:
    """Whether any value of any of the tensors is NaN or infinite; waits for the device."""
    return any(count_nonfinite(tensor) > 0 for tensor in tensors)


def count_nonfinite(tensor: Tensor) -> int:
    """NaN and infinite values; 0 where a tensor can hold none or has no values to look at."""
    values = tensor.detach()
    if values.is_meta or values.is_quantized or values.is_nested:
        return 0
    if values.layout is not torch.strided:
        values = values.coalesce().values() if values.is_sparse else values.to_dense()
    if not (values.is_floating_point() or values.is_complex()):
        return 0
    if values.dtype.itemsize < 2:
        values = values.float()
    return int(values.numel() - torch.isfinite(values).sum())
