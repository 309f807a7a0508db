"""What frameworks put around a model and its optimizer: Lightning, Fabric and accelerate."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer

from inspector.capture.attach import Attachment
from inspector.errors import InspectorError

_HOOKS = "_optimizer_step_post_hooks"
_LIGHTNING = "LightningModule"


def called_in(model: nn.Module) -> nn.Module:
    """The module that training calls, where that is known to be one inside ``model``.

    Fabric wraps it. A LightningModule without a ``forward`` of its own is never called: if all
    parameters are those of one module in it, it is that one.
    """
    parts = dict(model.named_children())
    if type(model).__name__ == "_FabricModule" and "_forward_module" in parts:
        return called_in(parts["_forward_module"])
    if _definer(model).__name__ == _LIGHTNING:
        trained = [part for part in parts.values() if next(part.parameters(), None) is not None]
        own = next(model.parameters(recurse=False), None)
        if len(trained) == 1 and own is None and _definer(trained[0]) is not nn.Module:
            return trained[0]
    return model


def parts_called(model: nn.Module) -> dict[str, nn.Module]:
    """By path, what a script can call: the model, or its parts where it has no ``forward``."""
    found, pending = {}, [("", model)]
    while pending:
        path, module = pending.pop(0)
        definer = _definer(module)
        if "forward" in vars(module) or (
            definer is not nn.Module and definer.__name__ != _LIGHTNING
        ):
            found[path] = module
        else:
            parts = module.named_children()
            pending += [(f"{path}.{name}".removeprefix("."), part) for name, part in parts]
    return found


def _definer(module: nn.Module) -> type:
    """The class that says what calling the module does."""
    return next(one for one in type(module).__mro__ if "forward" in vars(one))


def all_of(given: Any) -> list[Any]:
    """What was given to ``watch()``, as a list of optimizers or of what is around them.

    Raises:
        InspectorError: the list would be empty.
    """
    some = isinstance(given, Iterable) and not isinstance(given, Optimizer)
    found = list(given) if some else [given]
    if not found:
        raise InspectorError(_expected(given))
    return found


def unwrapped(given: Any) -> Optimizer:
    """The optimizer itself, out of what frameworks put around it.

    Raises:
        InspectorError: there is none.
    """
    found = given
    while isinstance(found, Optimizer):
        own = vars(found)
        if _HOOKS in own:
            return found
        found = own.get("optimizer") or own.get("_optimizer")
    raise InspectorError(_expected(given))


def scaler_of(given: Optimizer) -> Any:
    """The GradScaler that a wrapper steps its optimizer with; None if there is none."""
    return None if _HOOKS in vars(given) else vars(given).get("scaler")


def lead_through(given: Optimizer, optimizer: Optimizer, attachment: Attachment) -> None:
    """Lets ``zero_grad()`` of a wrapper that inherits it reach that of the optimizer itself."""
    if given is not optimizer and type(given).zero_grad is type(optimizer).zero_grad:
        attachment.replace_method(given, "zero_grad", partial(_zero_grad, optimizer))


def _zero_grad(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
    optimizer.zero_grad(*args, **kwargs)


def _expected(given: Any) -> str:
    kind = repr(given) if not given and isinstance(given, Iterable | None) else type(given).__name__
    text = f"watch() expects an optimizer or a sequence of them, but got {kind}"
    if given is None:
        return f"{text}. Call it when the optimizer is made; docs/watching.md says where that is."
    if isinstance(given, Optimizer):
        return f"{text}, which hides the optimizer that steps. Pass that one."
    return f"{text}."
