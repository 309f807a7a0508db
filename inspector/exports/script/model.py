"""The model in a script: its source, how it is made, and the weights that it starts with."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inspector.exports.script import pieces
from inspector.exports.script.facts import Facts
from inspector.exports.script.text import (
    Imports,
    Lines,
    call,
    comment,
    literal,
    module_source,
    source_of,
)
from inspector.training.exchanging import Exchange, exchange
from inspector.training.initialisation import summary
from inspector.training.models import arguments_for, torchvision_arguments
from inspector.training.replacing import by_path

_AS_THEY_ARE = ("training_step", "validation_step", "collate_fn")


def write_model(facts: Facts, imports: Imports, definitions: list[str], main: Lines) -> None:
    """Adds what makes the model; ``main`` afterwards has a ``model`` with its first weights."""
    config, model = facts.config, facts.task.model
    kind = config.model.partition(":")[0]
    imports.add("import torch\nfrom torch import nn")
    if kind == "torchvision":
        _torchvision(facts, imports, main)
    elif kind in ("file", "import", "code"):
        _own(facts, imports, main)
    else:
        module = sys.modules[type(model).__module__]
        definitions.append(module_source(imports, inspect.getsource(module)))
        made = arguments_for(type(model), config, facts.task.source)
        main.add(f"model = {call(type(model).__name__, made)}")
    _replace(config.replace, imports, definitions, main)


def _replace(wanted: dict[str, Any], imports: Imports, definitions: list[str], main: Lines) -> None:
    """Adds what puts other modules in place, then other functions."""
    for key, name in wanted.items():
        if not key.endswith("()"):
            definitions += source_of(imports, pieces.replace)
            main.add(f"replace(model, {literal(key)}, nn.{name})")
    for path, functions in by_path(wanted).items():
        definitions += source_of(imports, Exchange, exchange)
        module = f"model.get_submodule({literal(path)})" if path else "model"
        made = ", ".join(f"{literal(name)}: nn.{cls}()" for name, cls in functions.items())
        main.add(f"exchange({module}, {{{made}}})")


def first_weights(facts: Facts, imports: Imports, main: Lines, out: Path) -> None:
    """Weights that no constructor gives are kept beside the script."""
    config, model = facts.config, facts.task.model
    if not (config.weights or config.init):
        return
    torch.save({"model": model.state_dict(), "random": facts.random}, out / "start.pt")
    imports.add("from pathlib import Path")
    about = summary(model, config.init) or f"First weights from {config.weights}."
    main.add(comment(about, "").strip())
    main.add('start = torch.load(Path(__file__).with_name("start.pt"), weights_only=True)')
    main.add('model.load_state_dict(start["model"])')
    main.add('torch.set_rng_state(start["random"])')


def copy_sources(facts: Facts, out: Path) -> None:
    """The user's own files, as the run has kept them."""
    folder = facts.run.path / "blobs" / "source"
    for path in sorted(folder.rglob("*.py")) if folder.is_dir() else ():
        target = out / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())


def import_own(reference: str, imports: Imports) -> str:
    """Imports what a reference names from the file beside the script; its name there."""
    kind, _, rest = reference.partition(":")
    place, _, name = rest.rpartition(":")
    module = place if kind == "import" else Path(place).stem if place else "your_code"
    top, dot, inner = name.partition(".")
    if top in _AS_THEY_ARE or (top[:1].isupper() and not hasattr(pieces, top)):
        imports.own[f"from {module} import {top}"] = None
        return name
    # The script has names of its own.
    imports.own[f"from {module} import {top} as own_{top}"] = None
    return f"own_{top}{dot}{inner}"


def _own(facts: Facts, imports: Imports, main: Lines) -> None:
    name = import_own(facts.config.model, imports)
    found = facts.own.model
    if found is not None and isinstance(found.value, nn.Module):
        imports.add("import copy")
        main.add(f"model = copy.deepcopy({name})")
        return
    made = arguments_for(found.value if found else None, facts.config, facts.task.source)
    main.add(f"model = {call(name, made)}")


def _torchvision(facts: Facts, imports: Imports, main: Lines) -> None:
    name, made = torchvision_arguments(facts.config, facts.task.source)
    imports.add("from torchvision import models")
    main.add(f"model = models.get_model({literal(name)}, weights=None, {call('', made)[1:-1]})")
    first = next(
        ((path, m) for path, m in facts.task.model.named_modules() if isinstance(m, nn.Conv2d)),
        None,
    )
    channels = facts.task.source.shape[0]
    if first is not None and channels != 3:
        path, conv = first
        arguments: dict[str, Any] = {
            key: getattr(conv, key)
            for key in ("in_channels", "out_channels", "kernel_size", "stride", "padding")
        } | {"bias": conv.bias is not None}
        main.add(f"model.set_submodule({literal(path)}, {call('nn.Conv2d', arguments)})")
