"""The formats of ``torch-inspector export``: one entry each. To add one, add its entry."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from inspector.errors import ExportError
from inspector.store.reader import Run

Group = Literal["Model", "Telemetry", "Report", "Configuration"]
Form = Literal["long", "wide"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be written.

    Attributes:
        out: where to: a file, or a folder that exists and is empty.
        checkpoint: ``last``, ``best`` or the name of another checkpoint of the run.
        form: ``long`` has one line a measurement, ``wide`` one line a step.
    """

    run: Run
    out: Path
    checkpoint: str = "last"
    form: Form = "long"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was written.

    Attributes:
        notes: sentences for the person who asked.
        facts: measured figures, such as ``max_abs`` of a comparison.
    """

    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format.

    Attributes:
        key: what ``--to`` calls it.
        about: one sentence.
        suffix: of the file; a folder is written where ``folder`` is true.
        maker: ``module:function``; takes a :class:`Request` and gives :class:`Made`.
        needs: modules that must be importable, all part of the extra ``export``.
        rebuilds: something is built anew from the configuration, which only runs of the built-in
            trainer have.
    """

    key: str
    group: Group
    title: str
    about: str
    suffix: str
    maker: str
    folder: bool = False
    needs: tuple[str, ...] = ()
    rebuilds: bool = False

    def missing(self) -> str:
        """A sentence about what has to be installed; empty when nothing is missing."""
        absent = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if not absent:
            return ""
        return (
            f"Format {self.key} needs {' and '.join(absent)}, which this environment lacks; "
            "install them with: pip install 'torch-inspector[export]'."
        )


_ALL = (
    Format(
        key="state_dict", group="Model", title="PyTorch weights",
        about="The state_dict of a checkpoint, which torch.load(weights_only=True) reads.",
        suffix=".pt", maker="inspector.exports.model.weights:state_dict",
    ),
    Format(
        key="safetensors", group="Model", title="safetensors",
        about="The same weights in a file that cannot contain code.",
        suffix=".safetensors", maker="inspector.exports.model.weights:safetensors",
    ),
    Format(
        key="onnx", group="Model", title="ONNX",
        about="For ONNX Runtime and others; checked against PyTorch on real samples.",
        suffix=".onnx", maker="inspector.exports.model.programs:onnx",
        needs=("onnx", "onnxscript", "onnxruntime"), rebuilds=True,
    ),
    Format(
        key="torch_export", group="Model", title="torch.export",
        about="A whole program that PyTorch runs without the model's source; checked.",
        suffix=".pt2", maker="inspector.exports.model.programs:torch_export", rebuilds=True,
    ),
    Format(
        key="torchscript", group="Model", title="TorchScript",
        about="For LibTorch and mobile; checked. PyTorch calls it deprecated: prefer torch.export.",
        suffix=".torchscript.pt", maker="inspector.exports.model.programs:torchscript",
        rebuilds=True,
    ),
    Format(
        key="parquet", group="Telemetry", title="Parquet",
        about="Every measured number, exactly, for pandas, Polars, DuckDB or Spark.",
        suffix=".parquet", maker="inspector.exports.tables:parquet",
    ),
    Format(
        key="csv", group="Telemetry", title="CSV",
        about="The same table as text.",
        suffix=".csv", maker="inspector.exports.tables:csv",
    ),
    Format(
        key="tensorboard", group="Telemetry", title="TensorBoard",
        about="Event files with scalars, histograms, hyperparameters and times.",
        suffix="-tensorboard", maker="inspector.exports.tensorboard:tensorboard", folder=True,
        needs=("tensorboard",),
    ),
    Format(
        key="wandb", group="Telemetry", title="Weights & Biases",
        about="An offline run, made without account or network; wandb sync uploads it.",
        suffix="-wandb", maker="inspector.exports.weights_and_biases:wandb", folder=True,
        needs=("wandb",),
    ),
    Format(
        key="html", group="Report", title="HTML report",
        about="Charts, findings, settings and events as one page that works offline.",
        suffix=".html", maker="inspector.exports.html.report:html",
    ),
    Format(
        key="script", group="Configuration", title="PyTorch script",
        about="The run as plain PyTorch, with all that was changed by hand; same weights.",
        suffix="-script", maker="inspector.exports.script.script:script", folder=True,
        rebuilds=True,
    ),
    Format(
        key="config", group="Configuration", title="Configuration",
        about="JSON that torch-inspector train repeats the run from.",
        suffix=".json", maker="inspector.exports.configuration:configuration", rebuilds=True,
    ),
)  # fmt: skip

FORMATS: dict[str, Format] = {one.key: one for one in _ALL}


def find(key: str) -> Format:
    """The format of that name.

    Raises:
        ExportError: there is none.
    """
    if key not in FORMATS:
        raise ExportError(f"There is no format named {key!r}; choose from {', '.join(FORMATS)}.")
    return FORMATS[key]
