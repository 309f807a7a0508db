"""Modules that are held in eval mode while the rest of the model trains."""

from __future__ import annotations

import weakref
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from inspector.capture.attach import Attachment, Inert
from inspector.capture.freezing import unknown
from inspector.capture.parameters import plain
from inspector.errors import CommandError


class Modes:
    """Holds modules in eval mode, by path or by the name of their type.

    A script calls ``model.train()`` whenever it likes. So each held module is switched right
    before its forward, by a hook.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = weakref.ref(model)
        self._attachment = Attachment()
        self._held: list[weakref.ref[nn.Module]] = []

    def hold(self, names: Collection[str]) -> str:
        """Holds these modules, and those inside them, and lets go of all others; a note in words.

        Raises:
            CommandError: the model has no such module and no module of such a type, or it takes
                no hooks.
        """
        model = self._model()
        if model is None:
            raise CommandError("The model is gone; the run is about to end.")
        found = find(model, names)
        if any(isinstance(module, torch.jit.ScriptModule) for module in found):
            raise CommandError("A TorchScript module takes no hooks; its mode cannot be held.")
        self.release()
        self._held = [weakref.ref(module) for module in found]
        # Compiled code is entered by one call; hooks of what is inside it may not run.
        doors = [model] if found and hasattr(model, "_orig_mod") else found
        for door in doors:
            behind = self._held if door is model else [weakref.ref(door)]
            handle = door.register_forward_pre_hook(_Evaluates(behind))
            self._attachment.on_remove(handle.remove)
        for module in found:
            module.training = False
        count = len(found)
        return (
            f"{count} module{'s' * (count != 1)} held in eval mode"
            if count
            else "all are in the mode of the model"
        )

    def release(self) -> None:
        """Lets go of all; they are in the mode of the model."""
        model = self._model()
        self._attachment.remove()
        for reference in self._held:
            module = reference()
            if module is not None and model is not None:
                module.training = model.training
        self._held = []


class _Evaluates(Inert):
    """Before a forward pass: modules go into eval mode; inert in copies of the model."""

    __slots__ = ("_modules",)

    def __init__(self, modules: list[weakref.ref[nn.Module]]) -> None:
        self._modules = modules

    def __call__(self, _module: nn.Module, _args: Any) -> None:
        for reference in self._modules:
            module = reference()
            if module is not None and module.training:
                module.training = False


def find(model: nn.Module, names: Collection[str]) -> list[nn.Module]:
    """The modules of these paths or types, and all inside them, each once.

    Raises:
        CommandError: the model has none of a name.
    """
    modules = {plain(path): module for path, module in model.named_modules(remove_duplicate=False)}
    found: dict[nn.Module, None] = {}
    for name in names:
        tops = [modules[name]] if name in modules else _of_type(model, name)
        if not tops:
            types = sorted({type(module).__name__ for module in model.modules()})
            raise CommandError(
                f"{unknown(name, modules)} Nor has it a module of type {name!r}; "
                f"its types are {', '.join(types)}."
            )
        for top in tops:
            found.update(dict.fromkeys(top.modules()))
    return list(found)


def _of_type(model: nn.Module, name: str) -> list[nn.Module]:
    return [
        module
        for module in model.modules()
        if name in [base.__name__ for base in type(module).__mro__[:-2]]  # less Module, object
    ]
