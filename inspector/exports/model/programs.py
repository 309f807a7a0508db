"""Whole programs: ONNX, ``torch.export`` and TorchScript, each checked against the model."""

from __future__ import annotations

import contextlib
import io
import logging
import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import inspector
from inspector.errors import ExportError
from inspector.exports.formats import Made, Request
from inspector.exports.model.parity import Parity, compare
from inspector.exports.model.rebuilt import Rebuilt, rebuild

_ANY_BATCH = ({0: torch.export.Dim("batch")},)
_PACKAGE = Path(inspector.__file__).parent
_FOREIGN = (
    _PACKAGE, Path(torch.__file__).parent.parent, Path(sysconfig.get_paths()["stdlib"]),
)  # fmt: skip
_jit: Any = torch.jit  # deprecated and untyped


def onnx(request: Request) -> Made:
    """Writes ONNX by PyTorch's dynamo exporter; the first axis is the batch, of any size.

    Raises:
        ExportError: the exporter cannot express the model, or ONNX Runtime computes otherwise.
    """
    rebuilt = rebuild(request)
    with _quiet(), _said(request, "ONNX", rebuilt.model):
        program: Any = torch.onnx.export(
            rebuilt.model, (rebuilt.inputs,), dynamo=True, dynamic_shapes=_ANY_BATCH,
            input_names=["inputs"], verbose=False,
        )  # fmt: skip
        program.save(request.out, external_data=_huge(rebuilt.model))
    parity = compare(rebuilt, _runtime(request.out), "ONNX Runtime")
    return _made(rebuilt, parity, opset=program.model.opset_imports.get(""))


def torch_export(request: Request) -> Made:
    """Writes an ``ExportedProgram``: ``torch.export.load(FILE).module()`` runs it.

    Raises:
        ExportError: the model cannot be exported whole, or the loaded program differs.
    """
    rebuilt = rebuild(request)
    with _quiet(), _said(request, "torch.export", rebuilt.model):
        program = torch.export.export(rebuilt.model, (rebuilt.inputs,), dynamic_shapes=_ANY_BATCH)
        torch.export.save(program, request.out)
        loaded = torch.export.load(request.out).module()
    return _made(rebuilt, compare(rebuilt, loaded, "The exported program"))


def torchscript(request: Request) -> Made:
    """Writes TorchScript: a trace, or the compiled source where a trace would be wrong.

    Raises:
        ExportError: neither can be made, or the loaded module differs.
    """
    rebuilt = rebuild(request)
    with _quiet():
        try:
            return _traced(rebuilt, request)
        except ExportError as error:
            refusal = error
        with contextlib.suppress(ExportError):
            with _said(request, "TorchScript", rebuilt.model):
                _jit.script(rebuilt.model).save(request.out)
            return _script_made(rebuilt, request, "compiled from source")
    raise refusal


def _traced(rebuilt: Rebuilt, request: Request) -> Made:
    with warnings.catch_warnings(record=True) as noticed:
        warnings.simplefilter("always", _jit.TracerWarning)
        with _said(request, "TorchScript", rebuilt.model):
            _jit.trace(rebuilt.model, (rebuilt.inputs,), check_trace=False).save(request.out)
    branches = [one for one in noticed if "Python boolean" in str(one.message)]
    if branches:
        place = f"{branches[0].filename}:{branches[0].lineno}"
        raise ExportError(
            f"TorchScript cannot express {type(rebuilt.model).__name__}: a trace would freeze the "
            f"decision that it takes from its data at {place}, and its source does not compile."
        )
    return _script_made(rebuilt, request, "traced")


def _script_made(rebuilt: Rebuilt, request: Request, how: str) -> Made:
    made = _made(rebuilt, compare(rebuilt, _jit.load(request.out), "TorchScript"))
    return Made(notes=(*made.notes, f"The module was {how}."), facts={**made.facts, "how": how})


def _made(rebuilt: Rebuilt, parity: Parity, **facts: Any) -> Made:
    return Made(
        notes=(parity.sentence, *rebuilt.notes),
        facts={
            "max_abs": parity.max_abs,
            "max_rel": parity.max_rel,
            "batch_sizes": list(parity.sizes),
            "step": rebuilt.step,
            **facts,
        },
    )


def _runtime(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda inputs: session.run(None, {name: _array(inputs)})


def _array(inputs: Tensor) -> Any:
    return inputs.contiguous().numpy()


def _huge(model: nn.Module) -> bool:
    """Protocol buffers hold at most 2 GB; weights beyond lie in a file beside."""
    return sum(p.numel() * p.element_size() for p in model.parameters()) > 1_800_000_000


@contextlib.contextmanager
def _said(request: Request, what: str, model: nn.Module) -> Iterator[None]:
    """Whatever the exporter raises becomes one sentence with the user's line in it."""
    try:
        yield
    except Exception as error:
        cause = _deepest(error)
        place = _own_line(error) or _own_line(cause)
        where = f" at {place}" if place else ""
        raise ExportError(
            f"{what} cannot express {type(model).__name__} of run {request.run.name}{where}: "
            f"{_reason(cause)}; export state_dict or safetensors instead."
        ) from error


def _deepest(error: BaseException) -> BaseException:
    while (inner := error.__cause__) is not None:
        error = inner
    return error


def _reason(error: BaseException) -> str:
    text = str(error)
    if "data-dependent" in text or "data dependent" in text or "Dynamic control flow" in text:
        return "what it computes depends on the values in the batch (if or while on a tensor)"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (
        f"{type(error).__name__}: {lines[0][:160].rstrip('.')}" if lines else type(error).__name__
    )


def _own_line(error: BaseException) -> str:
    """The innermost line of the traceback that belongs to the model, not to a library or to us."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        bundled = file.is_relative_to(_PACKAGE / "bundle")  # the sample models of a wheel
        if file.is_file() and (bundled or not any(file.is_relative_to(one) for one in _FOREIGN)):
            return f"{file}:{frame.lineno}"
    return ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters print progress, warnings and whole graphs."""
    logging.disable(logging.WARNING)
    sink = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
