"""Modules whose parameters stay as they are: ``requires_grad`` off and on, between two steps."""

from __future__ import annotations

import weakref
from collections.abc import Collection

from torch import nn

from inspector.capture.parameters import plain
from inspector.errors import CommandError


class Freezing:
    """Freezes modules of a model; what was frozen before stays so.

    A frozen parameter has no gradient, so that no optimizer moves it, not even by momentum or
    weight decay. Its optimizer state is kept, and goes on when it is released.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = weakref.ref(model)
        self._held: set[str] = set()

    def hold(self, paths: Collection[str]) -> str:
        """Freezes these modules and releases those that were; a note in words.

        Raises:
            CommandError: there is no such module, it has no parameters, or nothing would be left
                to train.
        """
        model = self._model()
        if model is None:
            raise CommandError("The model is gone; the run is about to end.")
        wanted = inside(model, paths)
        named = dict(model.named_parameters(remove_duplicate=False))
        held = {id(named[name]) for name in self._held if name in named}
        left = {id(p) for p in named.values() if p.requires_grad or id(p) in held}
        frozen = {name for name in wanted if id(named[name]) in left}
        if paths and left <= {id(named[name]) for name in wanted}:
            raise CommandError(
                f"Freezing {', '.join(paths)} would leave nothing to train; leave a module out."
            )
        for name in self._held - frozen:
            if name in named:
                named[name].requires_grad_(True)
        for name in frozen:
            named[name].requires_grad_(False)
            named[name].grad = None
        self._held = frozen
        count = len({id(named[name]) for name in frozen})
        return f"{count} parameter{'s' * (count != 1)} frozen" if count else "everything is trained"

    def release(self) -> None:
        """Lets everything that was frozen here be trained again."""
        model = self._model()
        if model is not None and self._held:
            self.hold(())


def inside(model: nn.Module, paths: Collection[str]) -> set[str]:
    """Names of the parameters in these modules.

    Raises:
        CommandError: there is no such module, or it has no parameters.
    """
    modules = {plain(path): path for path, _ in model.named_modules(remove_duplicate=False)}
    found: set[str] = set()
    for path in paths:
        if path not in modules:
            raise CommandError(unknown(path, modules))
        own = [
            name
            for name, _ in model.get_submodule(modules[path]).named_parameters(
                prefix=modules[path], remove_duplicate=False
            )
        ]
        if not own:
            raise CommandError(f"Module {path!r} has no parameters; name one that has.")
        found.update(own)
    return found


def unknown(path: str, known: Collection[str]) -> str:
    """The refusal of a path, with those that there are."""
    top = ", ".join(name for name in known if name and "." not in name)
    return f"There is no module {path!r}; at its top the model has {top or 'none'}."
