"""The compiled kernel: built from ``kernel.c`` by the system's C compiler at first use, if any.

The library is kept in the user's cache directory under a name that contains the source, the
compiler's options and the processor, and used by every Python and PyTorch on the machine. Without
a compiler, or with ``INSPECTOR_KERNEL=off``, PyTorch's own operations do the work, more slowly.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inspector.quantities import ABSENT_BITS

SWITCH = "INSPECTOR_KERNEL"
_SOURCE = Path(__file__).with_name("kernel.c")
_PARTS = [_SOURCE.with_name("threads.c")]
_OPTIONS = (
    "-O3", "-march=native", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math",
    "-fno-math-errno", "-shared", "-fPIC",
)  # fmt: skip
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
_POINTER, _COUNT, _REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


class Kernel:
    """The functions of ``kernel.c`` with tensors instead of addresses.

    They hold the interpreter lock: the calls are shorter than a change of thread.
    """

    def __init__(self, library: Path) -> None:
        functions = ctypes.PyDLL(str(library))
        self._output = functions.inspector_output
        self._output.argtypes = (_POINTER, _COUNT, _REAL, _REAL, ctypes.c_int, _REAL, _POINTER)
        self._output.restype = None
        self._norm = functions.inspector_norm
        self._norm.argtypes = (_POINTER, _COUNT)
        self._norm.restype = _REAL
        self._norms = _many(functions.inspector_norms, 4)
        self._gradients = _many(functions.inspector_gradients, 6)
        self._keep = _many(functions.inspector_keep, 5)
        self._compare = _many(functions.inspector_compare, 6)
        self._modules = functions.inspector_modules
        self._modules.argtypes = (
            _POINTER, _COUNT, _POINTER, _COUNT, _REAL, _COUNT, _POINTER, _POINTER, ctypes.c_uint32,
        )  # fmt: skip
        self._modules.restype = _REAL
        self._parameters = functions.inspector_parameters
        self._parameters.argtypes = (
            _POINTER, _COUNT, _REAL, _REAL, _POINTER, _POINTER, ctypes.c_uint32,
        )  # fmt: skip
        self._spaces: dict[int, tuple[F32, int, Any]] = {}
        self._parameters.restype = None
        self._row = (_REAL * 8)()
        self._row_at = ctypes.addressof(self._row)

    def output_at(
        self, column: int, tensor: Tensor, bounds: tuple[float, float] | None, at: int
    ) -> None:
        """Writes column, count, sum, variance, zeros, saturated, non-finite and 1 at an address."""
        low, high = bounds or (0.0, 0.0)
        self._output(tensor.data_ptr(), tensor.numel(), low, high, bounds is not None, column, at)

    def output(
        self, column: int, tensor: Tensor, bounds: tuple[float, float] | None
    ) -> list[float]:
        """The same as a list."""
        self.output_at(column, tensor, bounds, self._row_at)
        return self._row[:]

    def modules(self, rows: F64, gradients: F64, scale: float, size: int) -> tuple[F32, float]:
        """Six statistics of each module, and the non-finite total.

        The array is used again by the next call for as many modules.
        """
        values, at, work = self._space(size)
        total = self._modules(
            rows.ctypes.data, len(rows), gradients.ctypes.data, len(gradients), scale, size,
            work, at, ABSENT_BITS,
        )  # fmt: skip
        return values, total

    def parameters(
        self, cells: F64, scale: float, received_scale: float
    ) -> tuple[F32, list[float]]:
        """Six statistics of each parameter, and the totals over all.

        The array is used again by the next call for as many parameters.
        """
        size = cells.shape[1]
        values, at, _ = self._space(-size)
        self._parameters(
            cells.ctypes.data, size, scale, received_scale, at, self._row_at, ABSENT_BITS
        )
        return values, self._row[:5]

    def room(self, size: int) -> tuple[F32, int, int]:
        """Six results for each of so many modules (negative: parameters), their address, and
        that of the memory for intermediate numbers; the same memory at every call."""
        values, at, work = self._space(size)
        return values, at, ctypes.addressof(work)

    def _space(self, size: int) -> tuple[F32, int, Any]:
        """Room for results and for intermediate numbers; negative sizes are parameters'."""
        space = self._spaces.get(size)
        if space is None:
            values = np.empty(6 * abs(size), np.float32)
            work = (_REAL * (8 * abs(size)))()
            space = self._spaces[size] = (values, values.ctypes.data, work)
        return space

    def norm(self, tensor: Tensor) -> float:
        """L2 norm of a fitting tensor."""
        return self._norm(tensor.data_ptr(), tensor.numel())  # type: ignore[no-any-return]

    def norms(self, tensors: Sequence[Tensor], sizes: Sizes) -> list[float]:
        """L2 norms of fitting tensors."""
        found = (_REAL * len(tensors))()
        self._norms(len(tensors), _addresses(tensors), sizes.array, found)
        return found[:]

    def gradients(
        self, tensors: Sequence[Tensor], sizes: Sizes
    ) -> tuple[list[float], list[float], list[float]]:
        """L2 norms, largest absolute values, and non-finite counts of fitting tensors."""
        count = len(tensors)
        norm, largest, nonfinite = (_REAL * count)(), (_REAL * count)(), (_REAL * count)()
        self._gradients(count, _addresses(tensors), sizes.array, norm, largest, nonfinite)
        return norm[:], largest[:], nonfinite[:]

    def keep(self, tensors: Sequence[Tensor], sizes: Sizes, copies: int) -> list[float]:
        """Copies fitting tensors to an address, one after the other; their norms."""
        norm = (_REAL * len(tensors))()
        self._keep(len(tensors), _addresses(tensors), sizes.array, copies, norm)
        return norm[:]

    def compare(
        self, tensors: Sequence[Tensor], sizes: Sizes, copies: int
    ) -> tuple[list[float], list[float]]:
        """Norms of the change since :meth:`keep`, and of the tensors now."""
        count = len(tensors)
        change, after = (_REAL * count)(), (_REAL * count)()
        at = _addresses(tensors)
        self._compare(count, at, sizes.array, copies, change, after)
        return change[:], after[:]


class Sizes:
    """Numbers of elements, as the kernel takes them."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        numbers = [tensor.numel() for tensor in tensors]
        self.array = (_COUNT * len(numbers))(*numbers)
        self.numbers = numbers

    @property
    def address(self) -> int:
        return ctypes.addressof(self.array)


def fits(tensor: Tensor) -> bool:
    """Whether the kernel can read the tensor: float32 on the CPU, one block of memory."""
    return (
        tensor.dtype is torch.float32
        and tensor.is_cpu
        and type(tensor) in _PLAIN
        and tensor.layout is torch.strided
        and (
            tensor.is_contiguous()
            or (tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last))
        )
        and not tensor.is_neg()
    )


_PLAIN = (Tensor, torch.nn.Parameter)


def switched_off() -> bool:
    """Whether the environment forbids compiled code."""
    return os.environ.get(SWITCH, "").lower() in ("off", "0", "no")


@functools.cache
def load() -> Kernel | None:
    """The kernel, built if need be; None when it cannot be had. Never raises."""
    if switched_off():
        return None
    try:
        library = build(_SOURCE, _PARTS)
        return None if library is None else Kernel(library)
    except Exception:
        return None


def description() -> str:
    """What does the work, for ``doctor`` and the tables in the documentation."""
    return "compiled kernel" if load() is not None else "no compiled kernel, PyTorch operations"


def build(source: Path, also: Sequence[Path] = (), *, python: bool = False) -> Path | None:
    """The library made of a C source, which is cached; None without a compiler.

    ``also`` are files that the source includes; ``python`` says that it needs Python's headers.
    """
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None or os.name == "nt":
        return None
    options = list(_OPTIONS)
    if python:
        options += [f"-I{sysconfig.get_paths()['include']}", f"-DBUILT_FOR={sys.hexversion}"]
        if sys.platform == "darwin":
            options += ["-undefined", "dynamic_lookup"]
    contents = [path.read_bytes() for path in (source, *also)]
    identity = (*contents, repr(options).encode(), compiler.encode(), _processor().encode())
    name = hashlib.sha256(b"\0".join(identity)).hexdigest()[:24]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch-inspector"
    library = root / f"{source.stem}-{name}.so"
    if library.exists():
        return library
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        part = Path(folder) / "part.so"
        command = [compiler, *options, "-o", str(part), str(source), "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        part.replace(library)
    return library


def _processor() -> str:
    """What ``-march=native`` depends on; a home directory may be shared by several machines."""
    try:
        flags = next(
            line for line in Path("/proc/cpuinfo").read_text().splitlines() if "flags" in line
        )
    except (OSError, StopIteration):
        flags = platform.processor()
    return f"{platform.machine()} {platform.system()} {flags}"


def _many(function: Any, arguments: int) -> Any:
    function.argtypes = (_COUNT, *(_POINTER for _ in range(arguments - 1)))
    function.restype = None
    return function


def _addresses(tensors: Sequence[Tensor]) -> Any:
    return (_POINTER * len(tensors))(*[tensor.data_ptr() for tensor in tensors])
