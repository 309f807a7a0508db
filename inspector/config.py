"""The configuration of a built-in run: what is trained on what, as one JSON-able value.

``runs/NAME/run.json`` holds it, ``torch-inspector train`` reads it, presets are made of it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from inspector.commands import Controls, check, target_of
from inspector.errors import ConfigError

OPTIMIZER_TITLES = {
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
    "adadelta": "Adadelta",
    "adamax": "Adamax",
    "nadam": "NAdam",
    "radam": "RAdam",
    "asgd": "ASGD",
    "rprop": "Rprop",
    "adafactor": "Adafactor",
    "muon": "Muon",
    "lbfgs": "LBFGS",
    "sparse_adam": "SparseAdam",
}
OPTIMIZERS = tuple(OPTIMIZER_TITLES)
LOSSES = (
    "auto", "cross_entropy", "mse", "bce_with_logits", "nll", "smooth_l1", "kl_div", "ctc",
)  # fmt: skip
PRECISIONS = ("float32", "bf16", "fp16")
TASKS = (
    "auto", "classification", "multi_label", "regression", "reconstruction", "sequence",
    "per_pixel", "distribution", "transcription", "own",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything that determines a built-in run.

    Attributes:
        model: a sample model (``mlp``, see ``sample_models/``), ``torchvision:resnet18``, or
            one of your own: ``file:PATH:NAME``, ``import:MODULE:NAME``, ``code:NAME``.
        model_args: keyword arguments of the model's constructor; input and output sizes that
            the data determines are filled in.
        weights: a .pt, .pth or .safetensors file that the model starts with; empty for none.
        weights_partial: take what fits of ``weights``, instead of refusing the file.
        data: name of a data source, such as ``digits``, ``torchvision:NAME`` for a class of
            ``torchvision.datasets``, or your own: ``csv:PATH``, ``parquet:PATH``,
            ``npz:PATH``, ``text:PATH``, ``folder:PATH`` of images, ``file:PATH:NAME``,
            ``import:MODULE:NAME``, ``code:NAME``.
        data_args: keyword arguments of the data source.
        code: Python source typed into the app, which ``code:NAME`` refers to.
        task: one of ``TASKS``; ``auto`` takes ``training_step`` where your model's source has
            one, else what the data is for; ``own`` insists on ``training_step``.
        optimizer: one of ``OPTIMIZERS``.
        lr, momentum, weight_decay: the optimizer's; momentum is the first beta of those
            that have betas (0 there, and for Muon, means PyTorch's default), and ignored by those
            that have neither.
        optimizer_args: further keyword arguments of the optimizer's class, such as ``nesterov``.
        param_groups: parameter groups with settings of their own: dicts with ``modules`` (paths;
            every parameter below them) and any of the optimizer's arguments, such as ``lr``.
        loss: one of ``LOSSES``; ``auto`` takes what suits the data's task.
        loss_args: keyword arguments of the loss, such as ``label_smoothing``; a ``weight`` is a
            list with one number per class.
        init: how modules are initialised, by the name of their type (``{"Linear":
            "kaiming_normal"}``); a type that is not named keeps PyTorch's default.
        replace: modules exchanged once the model is built: a type or a path to a class of
            ``torch.nn`` that needs no arguments (``{"Sigmoid": "ReLU"}``). An activation that
            ``forward`` calls as a function has parentheses (``{"sigmoid()": "ReLU"}``), and
            before it the path of a module, if only calls inside that are meant.
        follows: the finding of an earlier run that this one answers: ``run``, ``code``,
            ``text``, ``value``, ``threshold``, ``side``; its page then says whether it helped.
        precision: one of ``PRECISIONS``; other than float32 trains under autocast, fp16 with
            loss scaling.
        metrics: names of further metrics of the held-out samples; empty takes the task's usual.
        augment: torchvision v2 transforms of the training part: dicts with ``name`` and arguments.
        batch_size: samples per step.
        epochs: passes over the training part; ignored when ``steps`` is given.
        steps: optimizer steps, or None.
        validation: share of the samples held out, in [0, 0.9].
        test: share that is kept for one look after the last step; with ``validation`` at most 0.9.
        stratify: split so that each class has the same share in every part.
        normalize: subtract mean and divide by standard deviation of the training part, per
            channel or column.
        balance: draw each class equally often.
        workers: processes that load batches; more than 0 trains in a child process.
        pin_memory: load batches into pinned memory, for faster copies to CUDA.
        early_stopping: stop after so many validations in a row without a better validation loss;
            0 never stops early.
        checkpoint_every: keep a checkpoint every so many steps, besides the last and the best.
        resume: a checkpoint that the run goes on from exactly (weights, optimizer, schedule,
            random numbers, order of the data): the path of its file, or ``RUN@STEP``,
            ``RUN@last``, ``RUN@best``.
        overfit_batches: train on the first so many batches only, again and again; a model that
            cannot learn one batch by heart has a fault. 0 trains on all.
        compile: run the model through ``torch.compile``; a text names the backend, such as
            ``aot_eager``.
        deterministic: ask PyTorch for deterministic algorithms only.
        seed: seeds the split, the initial weights and the shuffling.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        in_process: True trains in a background thread, False in a child process.
        torch_threads: intra-op threads of the CPU; 0 leaves PyTorch's default.
        by_hand: controls that change on the way: dicts with ``step`` (completed steps), ``control``
            and ``value``, and ``target`` where it is for one parameter group (as of a
            ``Command``); ``stop`` ends the run. An exported configuration says here what was
            done by hand.
        controls: the controls in force at the first step (lr, momentum and weight_decay
            there are None: those above are the optimizer's).
    """

    model: str = "mlp"
    model_args: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    weights_partial: bool = False
    data: str = "digits"
    data_args: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    task: str = "auto"
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    optimizer_args: dict[str, Any] = field(default_factory=dict)
    param_groups: list[Any] = field(default_factory=list)
    loss: str = "auto"
    loss_args: dict[str, Any] = field(default_factory=dict)
    init: dict[str, Any] = field(default_factory=dict)
    replace: dict[str, Any] = field(default_factory=dict)
    follows: dict[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    metrics: list[Any] = field(default_factory=list)
    augment: list[Any] = field(default_factory=list)
    batch_size: int = 64
    epochs: int = 60
    steps: int | None = None
    validation: float = 0.2
    test: float = 0.0
    stratify: bool = False
    normalize: bool = False
    balance: bool = False
    workers: int = 0
    pin_memory: bool = False
    early_stopping: int = 0
    checkpoint_every: int = 0
    resume: str = ""
    overfit_batches: int = 0
    compile: bool | str = False
    deterministic: bool = False
    seed: int = 0
    device: str = "auto"
    in_process: bool = True
    torch_threads: int = 0
    by_hand: list[Any] = field(default_factory=list)
    controls: Controls = field(default_factory=Controls)

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(RunConfig).items():
            _check_type(name, getattr(self, name), hint)
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("loss", self.loss, LOSSES)
        _one_of("task", self.task, TASKS)
        _one_of("precision", self.precision, PRECISIONS)
        for name in ("lr", "momentum", "weight_decay"):
            Controls().with_value(name, getattr(self, name))
        _at_least("batch_size", self.batch_size, 1)
        _at_least("epochs", self.epochs, 1)
        for name in (
            "torch_threads", "workers", "early_stopping", "checkpoint_every", "overfit_batches",
        ):  # fmt: skip
            _at_least(name, getattr(self, name), 0)
        if self.steps is not None:
            _at_least("steps", self.steps, 1)
        for change in self.by_hand:
            _check_change(change)
        if not 0 <= self.validation <= 0.9:
            raise ConfigError(
                f"validation must be a share between 0 and 0.9, but got {self.validation}."
            )
        if not 0 <= self.test <= 0.9 - self.validation + 1e-9:
            raise ConfigError(
                "test must be a share of 0 or more, with validation at most 0.9, "
                f"but got {self.test} beside {self.validation}."
            )

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> RunConfig:
        """Raises ConfigError when a key is unknown or a value cannot be used."""
        known = {item.name for item in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise ConfigError(
                f"Unknown setting {unknown[0]!r}; choose from {', '.join(sorted(known))}."
            )
        fields = dict(fields)
        controls = fields.get("controls")
        if isinstance(controls, dict):
            made = Controls()
            for name, value in controls.items():
                made = made.with_value(name, value)
            fields["controls"] = made
        return cls(**fields)

    @classmethod
    def from_file(cls, path: Path) -> RunConfig:
        """Reads the JSON that :meth:`to_dict` makes, or a run's ``run.json``.

        Raises:
            ConfigError: the file is missing, not JSON, or not a configuration.
        """
        try:
            fields = json.loads(path.read_text("utf-8"))
        except OSError as error:
            raise ConfigError(
                f"Expected a configuration file at {path}, but it cannot be read: {error.strerror}."
            ) from error
        except ValueError as error:
            raise ConfigError(
                f"Expected JSON in {path}, but line-by-line reading failed: {error}."
            ) from error
        if not isinstance(fields, dict):
            raise ConfigError(
                f"Expected a JSON object in {path}, but got a {type(fields).__name__}."
            )
        return cls.from_dict(fields.get("config", fields))

    def with_setting(self, assignment: str) -> RunConfig:
        """A copy with one ``key=value`` changed; dots reach inside (``controls.clip=norm``).

        The value is read as JSON where that is possible, else as text.
        """
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"Expected key=value, but got {assignment!r}.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        fields = self.to_dict()
        *outer, last = path.strip().split(".")
        target = fields
        for key in outer:
            if not isinstance(target.get(key), dict):
                raise ConfigError(f"There is no group of settings named {key!r} in {path!r}.")
            target = target[key]
        target[last] = value
        return RunConfig.from_dict(fields)


def _check_type(name: str, value: Any, hint: Any) -> None:
    if hint is float:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    elif hint is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif hint == int | None:
        fits = value is None or (isinstance(value, int) and not isinstance(value, bool))
    elif hint in (dict[str, Any], list[Any]):
        fits = isinstance(value, dict if hint == dict[str, Any] else list)
    else:
        fits = isinstance(value, hint)
    if not fits:
        wanted = getattr(hint, "__name__", str(hint))
        raise ConfigError(f"{name} must be of type {wanted}, but got {value!r}.")


def _check_change(change: Any) -> None:
    keys = {"step", "control", "value"}
    given = set(change) - {"target"} if isinstance(change, dict) else set()
    if given != keys or type(change["step"]) is not int:
        raise ConfigError(
            "An entry of by_hand must be a dict of step (a whole number), control and value, and "
            f"target where it is for one parameter group, but got {change!r:.80}."
        )
    _at_least("step of by_hand", change["step"], 1)
    if change["control"] != "stop":
        check(str(change["control"]), change["value"])
    target_of(change.get("target", ""))


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, but got {value!r}.")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name} must be {least} or more, but got {value}.")
