"""A run as a folder with ``train.py``: plain PyTorch that ends with the same weights."""

from __future__ import annotations

import ast
import textwrap

import torch

from inspector.exports.formats import Made, Request
from inspector.exports.script import pieces
from inspector.exports.script.continuing import write_checkpoint
from inspector.exports.script.data import Data
from inspector.exports.script.facts import Facts, facts
from inspector.exports.script.loop import Loop
from inspector.exports.script.model import copy_sources, first_weights, import_own, write_model
from inspector.exports.script.optimisation import write_loss, write_optimizer
from inspector.exports.script.text import Imports, Lines, source_of

_MAIN = """if __name__ == "__main__":
    main()
"""


def script(request: Request) -> Made:
    """Writes ``train.py``, and beside it what it reads: sources, samples, weights, checkpoint.

    Where a source of the user's own has that name, the script is ``train_again.py``.

    Run on the CPU with the same versions, it ends with the same weights, bit for bit. What it
    cannot repeat is named in its first lines.

    Raises:
        ExportError: the run has no configuration, the checkpoint that it went on from is gone, or
            its own code draws samples that are then augmented.
        InspectorError: its model or data cannot be built any more.
    """
    state = torch.get_rng_state()
    try:
        known = facts(request)
        out = request.out
        copy_sources(known, out)
        text = _compose(known, request)
    finally:
        torch.set_rng_state(state)
    ast.parse(text)  # a script that is none must not leave the house
    name = "train.py" if not (out / "train.py").exists() else "train_again.py"
    (out / name).write_text(text, "utf-8")
    notes = [f"Run it in its folder with: python {name}."]
    if "dataset = " in text and known.own.data is not None:
        notes.append("It reads your data through your own Python, from where that finds it.")
    if known.missing:
        notes.append("The script does not repeat: " + " ".join(known.missing))
    return Made(notes=tuple(notes))


def _compose(known: Facts, request: Request) -> str:
    imports, main = Imports(), Lines()
    definitions: list[str] = []
    config = known.config
    if known.origin is not None:
        write_checkpoint(known.origin, imports, definitions, request.out)
    definitions += source_of(imports, pieces.seed_everything)
    main.add(f"torch.set_num_threads({known.threads})")
    if config.deterministic:
        main.add("torch.use_deterministic_algorithms(True)")
    main.add(f"seed_everything({config.seed})")
    seeded = len(main)
    data = Data(known)
    data.write(imports, definitions, main, request.out)
    main.add("", f"seed_everything({config.seed})")
    write_model(known, imports, definitions, main)
    first_weights(known, imports, main, request.out)
    if known.task.device.type != "cpu":
        main.add(f"device = torch.device({str(known.task.device)!r})", "model.to(device)")
    main.add("")
    data.write_loaders(imports, definitions, main)
    main.add("")
    write_loss(known, imports, definitions, main)
    write_optimizer(known, imports, main)
    if known.task.kind == "own":
        for function in ("training_step", "validation_step"):
            if reference := _step_reference(known, function):
                import_own(reference, imports)
    if config.compile:
        main.add("model.compile()" if config.compile is True else
                 f"model.compile(backend={config.compile!r})")  # fmt: skip
    main.add("")
    loop = Loop(known, data, imports, definitions)
    loop.write_loss_of(main)
    loop.write(main)
    main.add("", 'torch.save(model.state_dict(), Path(__file__).with_name("final.pt"))')
    imports.add("from pathlib import Path")
    if known.draws:
        main.insert(seeded, "# These draw random numbers when they are imported.", *imports.own)
    else:
        imports.add("\n".join(imports.own))
    body = "\n\n\n".join([*dict.fromkeys(definitions), f"def main() -> None:\n{main}", _MAIN])
    return f'"""{_about(known)}"""\n\n{imports.render()}\n\n\n{body}'


def _step_reference(known: Facts, function: str) -> str:
    """Where the user's own step is: in the model's source, else in the data's; empty if nowhere."""
    for loaded, of in ((known.own.model, known.config.model), (known.own.data, known.config.data)):
        if loaded is not None and hasattr(loaded.module, function):
            kind, _, rest = of.partition(":")
            place, _, _ = rest.rpartition(":")
            return f"{kind}:{place}:{function}" if place else f"{kind}:{function}"
    return ""


def _about(known: Facts) -> str:
    run, task = known.run, known.task
    parts = [
        f"{run.name}, as plain PyTorch.",
        "",
        f"Trains {run.config.get('model')} on {run.config.get('data')} as that run did, with all "
        "that was changed by hand, and saves the weights as final.pt. On the CPU, with "
        f"torch {torch.__version__.split('+')[0]} and the same number of threads, they are the "
        f"run's own, bit for bit{'' if task.device.type == 'cpu' else ' (elsewhere nearly)'}.",
    ]
    if known.origin is not None:
        parts[2] = (
            f"Goes on from the checkpoint {known.origin.title}, which lies beside this file. "
            + parts[2]
        )
    if known.missing:
        parts += ["", "Not repeated here:"] + [f"- {sentence}" for sentence in known.missing]
    text = "\n".join(textwrap.fill(part, 96, subsequent_indent="  " if part[:1] == "-" else "")
                     for part in parts)  # fmt: skip
    return text.replace("\\", "\\\\").replace('"""', "'''") + "\n"
