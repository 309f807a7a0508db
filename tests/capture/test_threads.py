"""Large tensors give the same numbers with any number of threads, and the right ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from inspector.capture import kernel
from inspector.capture.kernel import Kernel, Sizes

AROUND = 2 * 16 * 4096  # numbers from which a tensor is shared out
SIZES = [AROUND - 1, AROUND, AROUND + 63, 9 * AROUND // 2 + 7, 65 * 16 * 4096 + 1]


@pytest.fixture
def compiled() -> Iterator[Kernel]:
    found = kernel.load()
    if found is None:
        pytest.skip("no C compiler here")
    threads = torch.get_num_threads()
    yield found
    torch.set_num_threads(threads)


def numbers_of(compiled: Kernel, tensors: list[Tensor]) -> list[object]:
    sizes = Sizes(tensors)
    room = np.empty(sum(sizes.numbers), np.float32)
    found: list[object] = [
        compiled.output(0, tensors[0], (-1.0, 1.0)),
        compiled.norms(tensors, sizes),
        compiled.gradients(tensors, sizes),
        compiled.keep(tensors, sizes, room.ctypes.data),
    ]
    for tensor, copy in zip(tensors, np.split(room, np.cumsum(sizes.numbers)[:-1]), strict=True):
        assert np.array_equal(copy, tensor.numpy().ravel())
    moved = [tensor + 0.001 * (k + 1) for k, tensor in enumerate(tensors)]
    return [*found, compiled.compare(moved, sizes, room.ctypes.data)]


@pytest.mark.parametrize("size", SIZES)
def test_threads_change_no_number(compiled: Kernel, size: int) -> None:
    torch.manual_seed(size)
    tensors = [torch.randn(size) + 0.1, torch.randn(7), torch.randn(size) * 1e-3]
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(numbers_of(compiled, tensors))
    assert found[0] == found[1] == found[2]
    output, norms, (again, largest, bad), before, (change, after) = found[0]  # type: ignore[misc]
    first = tensors[0].double()
    assert output[:2] == [0, size] and output[4:7] == [
        int((first == 0).sum()), int((first.abs() > 1).sum()), 0,
    ]  # fmt: skip
    assert output[2] == pytest.approx(float(first.sum()), rel=1e-6)
    assert output[3] == pytest.approx(float(first.var(correction=0)), rel=1e-6)
    for found_norms in (norms, again, before):
        exact = [float(t.double().norm()) for t in tensors]
        assert found_norms == pytest.approx(exact, rel=1e-6)
    assert largest == [float(t.abs().max()) for t in tensors] and bad == [0, 0, 0]
    for k, tensor in enumerate(tensors):
        moved = (tensor + 0.001 * (k + 1)).double()
        assert change[k] == pytest.approx(float((moved - tensor.double()).norm()), rel=1e-5)
        assert after[k] == pytest.approx(float(moved.norm()), rel=1e-6)


def test_a_norm_does_not_depend_on_where_the_copy_lies(compiled: Kernel) -> None:
    torch.manual_seed(0)
    tensor = torch.randn((1 << 20) + 77)
    sizes = Sizes([tensor])
    room = np.empty(tensor.numel() + 32, np.float32)
    norms = []
    for skipped in range(32):
        norms.append(compiled.keep([tensor], sizes, room[skipped:].ctypes.data))
        assert np.array_equal(room[skipped : skipped + tensor.numel()], tensor.numpy())
    assert norms == norms[:1] * 32


@pytest.mark.parametrize("where", [0, AROUND, 65 * 16 * 4096])
def test_one_number_that_is_not_finite_is_found_in_any_part(compiled: Kernel, where: int) -> None:
    torch.set_num_threads(2)
    tensor = torch.randn(65 * 16 * 4096 + 1)
    tensor[where] = torch.nan
    norm, largest, bad = compiled.gradients([tensor], Sizes([tensor]))
    assert np.isnan(norm[0]) and np.isnan(largest[0]) and bad == [1]
    tensor[where] = torch.inf
    norm, largest, bad = compiled.gradients([tensor], Sizes([tensor]))
    assert norm == [np.inf] and largest == [np.inf] and bad == [1]
