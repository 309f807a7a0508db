"""The lines of a script that take a checkpoint up: state, and the place in the data."""

from __future__ import annotations

import shutil
from pathlib import Path

from inspector.exports.script import pieces
from inspector.exports.script.facts import Facts
from inspector.exports.script.origin import Origin
from inspector.exports.script.text import Imports, Lines, comment, source_of
from inspector.training.order import generators
from inspector.training.own.datasets import OwnLoaders

_FILE = "checkpoint.pt"


def write_checkpoint(origin: Origin, imports: Imports, definitions: list[str], out: Path) -> None:
    """Copies the checkpoint beside the script, and names it in the script's first lines."""
    shutil.copyfile(origin.path, out / _FILE)
    imports.add("from pathlib import Path")
    definitions.append(f'CHECKPOINT = Path(__file__).with_name("{_FILE}")  # {origin.title}')


def write_state(facts: Facts, origin: Origin, main: Lines) -> None:
    """Adds what puts weights, buffers, gradients and the optimizer's state back."""
    state, task = origin.state, facts.task
    main.add("", 'checkpoint = torch.load(CHECKPOINT, map_location="cpu", weights_only=True)')
    if any(name.startswith("model.") for name in state["lost"]):
        main.add('kept = {name: x for name, x in checkpoint["model"].items() if x is not None}',
                 "model.load_state_dict(kept, strict=False)")  # fmt: skip
    else:
        main.add('model.load_state_dict(checkpoint["model"])')
    if state["buffers"]:
        main.add('for name, buffer in checkpoint["buffers"].items():',
                 "    model.get_buffer(name).copy_(buffer)")  # fmt: skip
    if state["frozen"] or not all(p.requires_grad for p in task.model.parameters()):
        main.add("for name, parameter in model.named_parameters():",
                 '    parameter.requires_grad_(name not in checkpoint["frozen"])')  # fmt: skip
    if state["gradients"]:
        moved = "" if task.device.type == "cpu" else ".to(device)"
        main.add('for name, gradient in checkpoint["gradients"].items():',
                 f"    model.get_parameter(name).grad = gradient{moved}")  # fmt: skip
    if origin.keeps(task.optimizer):
        main.add('optimizer.load_state_dict(checkpoint["optimizer"])')
    else:
        main.add(comment(f"The state of {state['optimizer_type']} is of no use to this optimizer."))


def write_place(
    facts: Facts, origin: Origin, imports: Imports, definitions: list[str], main: Lines
) -> None:
    """Adds ``remaining``, the batches that are left of the epoch, with its random numbers."""
    drawn = "[shuffle]"
    if facts.config.overfit_batches:
        drawn = "[]"
    elif isinstance(facts.task.source, OwnLoaders):
        definitions += source_of(imports, generators)
        drawn = "generators(train_loader)"
    definitions += source_of(imports, pieces.rest_of_epoch)
    main.add(f"remaining = rest_of_epoch(train_loader, {drawn}, checkpoint, {origin.batch})")
