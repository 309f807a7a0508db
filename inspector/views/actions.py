"""What the app can do about a finding: buttons for the running training and for the next run."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inspector.commands import Name
from inspector.diagnosis.finding import Finding

_SIGMOID_LIKE = frozenset(("vanishing_gradient", "saturated_activation"))
_NEW_WEIGHTS = frozenset(("vanishing_gradient", "saturated_activation", "dead_relu",
                          "poor_initialization"))  # fmt: skip
_SATURATING = frozenset(("Sigmoid", "Tanh", "Hardsigmoid", "Hardtanh", "Softsign"))
_WEIGHTED = frozenset(("Linear", "Conv1d", "Conv2d", "Conv3d"))
_RECTIFYING = frozenset(("ReLU", "ReLU6"))
_FUNCTIONS = {"relu": "ReLU", "sigmoid": "Sigmoid", "tanh": "Tanh"}  # and modules that call them
_FUSED = frozenset(("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"))
_NORMALISING = frozenset(("Softmax", "Sigmoid", "Tanh", "LogSoftmax"))
_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "unnormalized_input": ("normalise the inputs", {"normalize": True}),
    "class_imbalance": ("draw each class equally often", {"balance": True}),
    "overfitting": ("stop when validation no longer improves", {"early_stopping": 5}),
    "wrong_loss": ("take the loss that suits the data", {"loss": "auto"}),
}


@dataclass(frozen=True, slots=True)
class Action:
    """A button: the command that it sends, or the settings with which the next run starts."""

    label: str
    about: str
    name: Name = "remedy"
    value: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def needs_new_run(self) -> bool:
        """Whether it cannot be done to a run that is going."""
        return bool(self.settings)


def actions(
    finding: Finding,
    config: Mapping[str, Any],
    modules: Sequence[Mapping[str, Any]] = (),
    activations: Sequence[Mapping[str, Any]] = (),
    *,
    live: bool = True,
) -> list[Action]:
    """What the app can do about a finding: to the running model first, then in the next run.

    Args:
        config: how the run was started; empty for a loop that is not ours.
        modules: rows of the run's ``modules`` document.
        activations: rows of ``activations`` in its ``structure`` document: seen in the graph, so
            those that were called as functions are among them.
        live: whether the run goes on; an ended run of ours leaves only the next one.
    """
    kinds = _kinds(modules, activations)
    later = _next_run(finding, config, modules, kinds, live=live)
    return later if config and not live else _now(finding) + later


def _now(finding: Finding) -> list[Action]:
    judged = _judged_by(finding)
    made = [
        Action(
            remedy.text.rstrip("."),
            f"Sets {remedy.control} to {remedy.value} at the next step; after fifty steps you are "
            "told whether it has helped.",
            value={"action": "set", "control": remedy.control, "value": remedy.value,
                   "text": remedy.text, **judged},
        )
        for remedy in finding.remedies
        if remedy.control
    ]  # fmt: skip
    if finding.code in _NEW_WEIGHTS:
        made += _new_weights(finding, judged)
    if finding.module is not None and any(remedy.unfreezes for remedy in finding.remedies):
        text = f"Unfreeze {finding.module or 'the model'}"
        value = {"action": "unfreeze", "module": finding.module, "text": text, **judged}
        made.append(Action(text, "Its parameters ask for gradients and join the optimizer.",
                           value=value))  # fmt: skip
    return made


def _new_weights(finding: Finding, judged: dict[str, Any]) -> list[Action]:
    saturating = finding.code in _SIGMOID_LIKE
    method, title = ("xavier", "Xavier") if saturating else ("he", "He")
    whole = finding.code == "vanishing_gradient" or not finding.module
    module = "" if whole else _owner(finding)
    where = "all modules" if whole else module
    text = f"Re-initialise {where} ({title})"
    about = (
        "Draws new weights whose size fits the activations, so that gradients keep their size from "
        "module to module. What these weights had learnt is lost."
    )
    value = {"action": "reinitialize", "module": module, "method": method, "text": text, **judged}
    return [Action(text, about, value=value)]


def _next_run(
    finding: Finding,
    config: Mapping[str, Any],
    modules: Sequence[Mapping[str, Any]],
    kinds: dict[str, str],
    *,
    live: bool,
) -> list[Action]:
    """What needs a run of its own; nothing where the loop is not ours to start.

    ``kinds``: types of modules, by what exchanges them.
    """
    if not config:
        return []
    types = set(kinds.values())
    offered: list[tuple[str, dict[str, Any]]] = []
    if finding.code in _SIGMOID_LIKE:
        offered += [
            (f"{text}, initialised by He", changed | {"init": _by_he(config, types)})
            for text, changed in _swapped(config, _of(kinds, _SATURATING), "ReLU")
        ]
    elif finding.code == "dead_relu":
        offered += _swapped(config, _of(kinds, _RECTIFYING), "LeakyReLU")
    elif finding.code == "double_softmax":
        offered += _last_taken_away(config, modules)
    elif finding.code == "poor_initialization":
        init = _by_he(config, types)
        if init != config.get("init", {}):
            offered.append(("initialise by He", {"init": init}))
    settings = _SETTINGS.get(finding.code)
    if settings is not None:
        text, changed = settings
        if any(config.get(name) != value for name, value in changed.items()):
            offered.append((text, changed))
    if not live:
        offered += _controls(finding, config)
    return [
        Action(
            f"Next run: {text}",
            "Prepares the next run with the same settings and this change; you see it before it "
            "starts. Afterwards its Findings page says whether it helped.",
            settings=changed | {"follows": {"text": text, **_answered(finding)}},
        )
        for text, changed in offered
    ]


def _kinds(
    modules: Sequence[Mapping[str, Any]], activations: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """What exchanges activations and other modules, ``ReLU`` or ``relu()``: their type.

    An activation is a function's where no module of its type lies beside or above what it
    follows. Its exchange takes in the modules that call the same function.
    """
    types = {str(row["path"]): str(row["type"]) for row in modules}
    placed = {(path.rpartition(".")[0], kind) for path, kind in types.items() if path}
    kinds = {kind: kind for kind in types.values()}
    for row in activations:
        function, path = str(row["function"]), str(row["module"] or "")
        kind = _FUNCTIONS.get(function)
        if kind is None or types.get(path) in _FUSED:
            continue
        parts = path.split(".")
        above = (".".join(parts[:depth]) for depth in range(len(parts)))
        if not any((scope, kind) in placed for scope in above):
            kinds.pop(kind, None)
            kinds[f"{function}()"] = kind
    return kinds


def _of(kinds: Mapping[str, str], wanted: Container[str]) -> list[str]:
    return [key for key, kind in kinds.items() if kind in wanted]


def _by_he(config: Mapping[str, Any], types: set[str]) -> dict[str, Any]:
    """First weights for ReLU; the default of PyTorch shrinks the signal at each of them."""
    return {**config.get("init", {}), **dict.fromkeys(sorted(types & _WEIGHTED), "kaiming_normal")}


def _swapped(
    config: Mapping[str, Any], what: Iterable[str], other: str
) -> list[tuple[str, dict[str, Any]]]:
    old = sorted(what)
    if not old:
        return []
    replaced = {**config.get("replace", {}), **dict.fromkeys(old, other)}
    return [(f"{' and '.join(old)} replaced by {other}", {"replace": replaced})]


def _last_taken_away(
    config: Mapping[str, Any], modules: Sequence[Mapping[str, Any]]
) -> list[tuple[str, dict[str, Any]]]:
    paths = [str(row["path"]) for row in modules if row["type"] in _NORMALISING and row["path"]]
    if not paths:
        return []
    replaced = {**config.get("replace", {}), paths[-1]: "Identity"}
    return [(f"without {paths[-1]} before the loss", {"replace": replaced})]


def _controls(finding: Finding, config: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What a button could set in a running training, for a run that starts with it."""
    offered: list[tuple[str, dict[str, Any]]] = []
    for remedy in finding.remedies:
        text = remedy.text.rstrip(".")
        text = text[:1].lower() + text[1:]
        if remedy.control in ("lr", "momentum", "weight_decay"):
            offered.append((text, {remedy.control: remedy.value}))
        elif remedy.control:
            controls = {**config.get("controls", {}), remedy.control: remedy.value}
            offered.append((text, {"controls": controls}))
    return offered


def _answered(finding: Finding) -> dict[str, Any]:
    """What the next run is compared with."""
    answered: dict[str, Any] = {"code": finding.code}
    if finding.evidence and (first := finding.evidence[0]).value is not None:
        answered |= {"statistic": first.statistic, "value": first.value, "side": first.side}
        answered["threshold"] = first.threshold
    return answered


def _owner(finding: Finding) -> str:
    """The module with the weights; a finding may be about the activation behind it."""
    subjects = [e.subject for e in finding.evidence if e.subject.endswith((".weight", ".bias"))]
    if subjects:
        return subjects[0].rpartition(".")[0]
    return (finding.module or "").rpartition(".")[0]


def _judged_by(finding: Finding) -> dict[str, Any]:
    """By which statistic the remedy is judged: the first evidence that was recorded."""
    judged: dict[str, Any] = {"code": finding.code}
    shown = next((e for e in finding.evidence if e.quantity), None)
    if shown is not None:
        judged |= {"quantity": shown.quantity, "subject": shown.subject, "side": shown.side}
        if shown.threshold is not None:
            judged["threshold"] = shown.threshold
    return judged
