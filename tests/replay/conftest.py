"""Numbers as PyTorch begins with them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def default_dtype() -> Iterator[None]:
    """An expression changes it: in the lab its process ends afterwards."""
    yield
    torch.set_default_dtype(torch.float32)
