"""A folder to send with a bug report: the model, the batch, and a short script that shows it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inspector.events import Origin
from inspector.store.layout import BLOBS
from inspector.timemachine.calls import OUTPUT
from inspector.timemachine.found import Found
from inspector.timemachine.replay import eager

_MOST_BYTES = 512 << 20
_MOST_REPORTS = 5
_STATE = "state.pt"


def write_report(
    run_path: Path, model: nn.Module, loss_fn: nn.Module | None, origin: Origin, found: Found
) -> str:
    """Writes ``blobs/nan-STEP/``; gives its path relative to the run, or "" if it cannot be.

    Raises:
        OSError: the disk is full or read-only.
    """
    call = found.call
    if call is None or not call.intact:
        return ""
    model = eager(model)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    blobs = run_path / BLOBS
    if size > _MOST_BYTES or len(list(blobs.glob("nan-*"))) >= _MOST_REPORTS:
        return ""
    folder = blobs / f"nan-{found.step}"
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "step": found.step,
        "path": call.path,
        "state_dict": model.state_dict(),
        "buffers": found.buffers,
        "args": call.args,
        "kwargs": call.kwargs,
        "loss_args": None if call.loss_args is None else _marked(call.loss_args),
        "loss_kwargs": _marked(call.loss_kwargs),
        "gradient": call.gradient,
        "random": call.random[0] if call.random else None,
        "autocast": call.autocast,
    }
    torch.save(state, folder / _STATE)
    pickled = _pickle(model, loss_fn, folder / "model.pt")
    lines = json.dumps(origin.text)
    roots = [str(path) for path in _roots(model, loss_fn)]
    script = _SCRIPT.format(found=lines, step=found.step, roots=roots, model=_model_lines(pickled))
    (folder / "reproduce.py").write_text(script, "utf-8")
    return f"{BLOBS}/{folder.name}"


def archive(folder: Path, target: Path) -> Path:
    """The folder as one .zip file beside ``target``."""
    return Path(shutil.make_archive(str(target.with_suffix("")), "zip", folder))


def _marked(value: Any) -> Any:
    """Arguments with the model's output named by a word that can be stored."""
    if isinstance(value, tuple):
        return tuple("<output>" if part is OUTPUT else part for part in value)
    return {key: "<output>" if part is OUTPUT else part for key, part in value.items()}


def _pickle(model: nn.Module, loss_fn: Any, path: Path) -> bool:
    try:
        torch.save({"model": model, "loss_fn": loss_fn}, path)
    except Exception:  # local classes and the like cannot be pickled
        path.unlink(missing_ok=True)
        return False
    return not any(type(module).__module__ == "__main__" for module in model.modules())


def _roots(*objects: Any) -> list[Path]:
    """Folders from which the modules' classes are imported."""
    roots: dict[Path, None] = {}
    for thing in objects:
        for module in thing.modules() if isinstance(thing, nn.Module) else ():
            name = type(module).__module__
            file = getattr(sys.modules.get(name), "__file__", None)
            if file and "site-packages" not in file and name != "__main__":
                roots.setdefault(Path(file).resolve().parents[name.count(".")])
    return list(roots)


def _model_lines(pickled: bool) -> str:
    if pickled:
        return (
            'made = torch.load(HERE / "model.pt", weights_only=False)\n'
            'model, loss_fn = made["model"], made["loss_fn"]'
        )
    return (
        "# The model could not be stored whole: build it here, as your script does.\n"
        "model, loss_fn = ..., ..."
    )


_SCRIPT = '''"""Step {step} once more, on the CPU. What torch-inspector found:

{found}
"""

import sys
import traceback
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

HERE = Path(__file__).resolve().parent
sys.path[:0] = {roots}
state = torch.load(HERE / "state.pt", map_location="cpu", weights_only=False)
{model}
model.cpu().load_state_dict({{**state["state_dict"], **state["buffers"]}})


def bad(value):
    if isinstance(value, (tuple, list)):
        return any(bad(part) for part in value)
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return floating and not value.isfinite().all()


class FirstBad(TorchDispatchMode):
    """Prints every operation that makes NaN or infinity out of finite numbers."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        was = bad(args)
        out = func(*args, **(kwargs or {{}}))
        if bad(out) and not was and not func.__name__.startswith(("empty", "new_empty")):
            node = torch._C._current_autograd_node()
            print(f"{{func}} gives NaN or infinity", f"in {{node.name()}}" if node else "")
            for arg in args:
                if isinstance(arg, torch.Tensor):
                    low, high = arg.min(), arg.max()
                    print("   input", tuple(arg.shape), f"from {{low:.6g}} to {{high:.6g}}")
            own = [f for f in traceback.extract_stack() if "/torch/" not in f.filename]
            print(f"   at {{own[-2].filename}}:{{own[-2].lineno}}" if len(own) > 1 else "")
        return out


model.train()
if state["random"] is not None:
    torch.set_rng_state(state["random"])
with torch.autograd.set_detect_anomaly(True, check_nan=False), FirstBad():
    output = model.get_submodule(state["path"])(*state["args"], **state["kwargs"])
    if state["loss_args"] is not None and loss_fn is not None:
        args = [output if a == "<output>" else a for a in state["loss_args"]]
        named = {{k: output if v == "<output>" else v for k, v in state["loss_kwargs"].items()}}
        loss = loss_fn(*args, **named)
        print("loss", loss.item())
        loss.backward()
    elif state["gradient"] is not None:
        output.backward(state["gradient"])
for name, parameter in model.named_parameters():
    if bad(parameter.grad):
        print("non-finite gradient:", name)
'''
