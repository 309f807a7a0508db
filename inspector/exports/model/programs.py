"""Whole programs: ONNX, ``torch.export`` and TorchScript, each checked against the model."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves_with_path

import inspector
from inspector.errors import ExportError
from inspector.exports.formats import Made, Request
from inspector.exports.model.inputs import WIDTH, Inputs
from inspector.exports.model.parity import Parity, compare
from inspector.exports.model.rebuilt import Rebuilt, rebuild

_PACKAGE = Path(inspector.__file__).parent
_FOREIGN = (
    _PACKAGE, Path(torch.__file__).parent.parent, Path(sysconfig.get_paths()["stdlib"]),
)  # fmt: skip
_jit: Any = torch.jit  # deprecated and untyped


def onnx(request: Request) -> Made:
    """Writes ONNX by PyTorch's dynamo exporter; the first axis is the batch, of any size.

    Several tensors are inputs of the names that they have in ``forward``.

    Raises:
        ExportError: the exporter cannot express the model, or ONNX Runtime computes otherwise.
    """
    return _as_free_as_it_can_be(request, _onnx)


def _onnx(rebuilt: Rebuilt, request: Request) -> Made:
    model, inputs = rebuilt.model, rebuilt.inputs
    # A dict that comes last would be taken for keyword arguments.
    args = (*inputs.args, {}) if inputs.args and not inputs.kwargs else inputs.args
    with _quiet(), _said(request, "ONNX", model):
        program: Any = torch.onnx.export(
            model, args, kwargs=inputs.kwargs or None, dynamo=True, verbose=False,
            dynamic_shapes=inputs.shapes(model),
            input_names=["inputs"] if len(inputs.tensors) == 1 else None,
            output_names=_output_names(inputs.into(model)),
        )  # fmt: skip
        program.save(request.out, external_data=_huge(model))
    parity = compare(rebuilt, _runtime(request.out), "ONNX Runtime")
    made = _made(rebuilt, parity, opset=program.model.opset_imports.get(""))
    graph = program.model.graph
    symbols = {
        str(value.shape[axis]): name
        for value, axes in zip(graph.inputs, inputs.axes, strict=True)
        for axis, name in axes.items()
    }
    taken, given = (
        [_shaped(value, symbols) for value in values] for values in (graph.inputs, graph.outputs)
    )
    return Made(
        notes=(*made.notes, f"It takes {', '.join(taken)} and gives {', '.join(given)}."),
        facts={**made.facts, "inputs": taken, "outputs": given},
    )


def _shaped(value: Any, symbols: Mapping[str, str]) -> str:
    """Name and shape; the exporter calls an axis ``s29`` where an argument is no tensor."""
    return f"{value.name} [{', '.join(symbols.get(str(d), str(d)) for d in value.shape)}]"


def _output_names(outputs: Any) -> list[str]:
    """The keys under which a model gives its tensors, or their numbers."""
    leaves = [path for path, leaf in tree_leaves_with_path(outputs) if isinstance(leaf, Tensor)]
    if len(leaves) == 1 and not leaves[0]:
        return ["outputs"]
    keys = [[str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", "")))) for k in path]
            for path in leaves]  # fmt: skip
    return ["_".join(["output", *key] if key[0].isdecimal() else key) for key in keys]


def _as_free_as_it_can_be(request: Request, make: Callable[[Rebuilt, Request], Made]) -> Made:
    """With strips and sequences of any length, or else of the length of the run's own."""
    rebuilt = rebuild(request)
    width = rebuilt.inputs.length(WIDTH)
    if not width:
        return make(rebuilt, request)
    try:
        return make(rebuilt, request)
    except ExportError:
        note = f"Inputs must be {width} wide: the model cannot be exported for any width."
        fixed = dataclasses.replace(rebuilt, inputs=rebuilt.inputs.fixed(WIDTH, note))
        return make(fixed, request)


def torch_export(request: Request) -> Made:
    """Writes an ``ExportedProgram``: ``torch.export.load(FILE).module()`` runs it.

    Raises:
        ExportError: the model cannot be exported whole, or the loaded program differs.
    """
    return _as_free_as_it_can_be(request, _torch_export)


def _torch_export(rebuilt: Rebuilt, request: Request) -> Made:
    model, inputs = rebuilt.model, rebuilt.inputs
    with _quiet(), _said(request, "torch.export", model):
        program = torch.export.export(
            model, inputs.args, inputs.kwargs, dynamic_shapes=inputs.shapes(model)
        )
        torch.export.save(program, request.out)
        loaded = torch.export.load(request.out).module()
    return _made(rebuilt, compare(rebuilt, lambda part: part.into(loaded), "The exported program"))


def torchscript(request: Request) -> Made:
    """Writes TorchScript: a trace, or the compiled source where a trace would be wrong.

    Raises:
        ExportError: neither can be made, or the loaded module differs.
    """
    return _as_free_as_it_can_be(request, _torchscript)


def _torchscript(rebuilt: Rebuilt, request: Request) -> Made:
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
            _trace(rebuilt.model, rebuilt.inputs).save(request.out)
    branches = [one for one in noticed if "Python boolean" in str(one.message)]
    if branches:
        place = f"{branches[0].filename}:{branches[0].lineno}"
        raise ExportError(
            f"TorchScript cannot express {type(rebuilt.model).__name__}: a trace would freeze the "
            f"decision that it takes from its data at {place}, and its source does not compile."
        )
    return _script_made(rebuilt, request, "traced")


def _trace(model: nn.Module, inputs: Inputs) -> Any:
    plain = {"check_trace": False, "strict": False}  # outputs may be dicts
    if not inputs.kwargs:
        return _jit.trace(model, inputs.args, **plain)
    return _jit.trace(model, example_kwarg_inputs=inputs.named(model), **plain)


def _script_made(rebuilt: Rebuilt, request: Request, how: str) -> Made:
    loaded = _jit.load(request.out)
    made = _made(rebuilt, compare(rebuilt, lambda part: part.into(loaded), "TorchScript"))
    return Made(notes=(*made.notes, f"The module was {how}."), facts={**made.facts, "how": how})


def _made(rebuilt: Rebuilt, parity: Parity, **facts: Any) -> Made:
    return Made(
        notes=(parity.sentence, *rebuilt.notes, *rebuilt.inputs.notes),
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
    names = [one.name for one in session.get_inputs()]
    return lambda inputs: session.run(
        None,
        {n: t.contiguous().numpy() for n, t in zip(names, inputs.tensors, strict=True)},
    )


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
        f"{type(error).__name__}: {lines[0][:160].rstrip('.,:')}" if lines else type(error).__name__
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
