"""Breaking a running model on purpose, and putting exactly that right again."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inspector.capture.attach import Inert
from inspector.errors import CommandError
from inspector.training.exchanging import exchange
from inspector.training.replacing import FUNCTIONS

ACTIVATIONS = (
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Softplus, nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid,
)  # fmt: skip
_FUNCTIONS = tuple(name for name in FUNCTIONS if "softmax" not in name)
Heal = Callable[[], None]


class Ward:
    """The patient: what faults are put into.

    Attributes:
        set_zero_grad: turns ``optimizer.zero_grad()`` on or off, without telling anybody.
        calls_functions: the model was seen to call activations that may be functions.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        loss_fn: Any = None,
        set_zero_grad: Callable[[bool], None] | None = None,
        *,
        calls_functions: bool = False,
    ) -> None:
        self._model = weakref.ref(model)
        self.optimizers = [weakref.ref(optimizer) for optimizer in optimizers]
        self.loss_fn = loss_fn if isinstance(loss_fn, nn.Module) else None
        self.set_zero_grad = set_zero_grad
        self.calls_functions = calls_functions

    @property
    def model(self) -> nn.Module:
        model = self._model()
        if model is None:
            raise CommandError("The model is gone; the run is about to end.")
        return model


def inject(fault: str, ward: Ward) -> Heal:
    """Puts a fault in; the result heals it and is called once.

    Raises:
        CommandError: there is no such fault, or this model has nothing it could act on.
    """
    if fault not in _FAULTS:
        raise CommandError(
            f"There is no fault named {fault!r}; choose one of {', '.join(_FAULTS)}."
        )
    return _FAULTS[fault](ward)


# ---------------------------------------------------------------- modules


class _Becomes:
    """A forward hook that gives a function of the module's output instead.

    It is copied with the model on purpose: a replay must meet the same fault.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        return self.function(output)


def _uncompiled(ward: Ward) -> nn.Module:
    """The model, in which what changes its passes is noticed."""
    model = ward.model
    compiled = (
        type(part).__name__ == "OptimizedModule" or part._compiled_call_impl is not None
        for part in model.modules()
    )
    if any(compiled):
        raise CommandError(
            "Expected a model that is not compiled: torch.compile does not notice this fault; "
            "set compile to false, or choose a fault of weights or of the optimizer."
        )
    return model


def _activations(ward: Ward, new: nn.Module, what: str) -> Heal:
    """Modules of PyTorch call the same functions, so both are reached."""
    model = _uncompiled(ward)
    if not ward.calls_functions and not any(isinstance(m, ACTIVATIONS) for m in model.modules()):
        raise CommandError(f"Expected activations for {what}, but the model has none.")
    before = {part: vars(part).get("forward") for part in model.modules()}
    exchange(model, dict.fromkeys(_FUNCTIONS, new))

    def heal() -> None:
        for part, forward in before.items():
            if forward is not None:
                part.forward = forward
            elif "forward" in vars(part):
                del part.forward

    return heal


def _sigmoid(ward: Ward) -> Heal:
    return _activations(ward, nn.Sigmoid(), "sigmoid everywhere")


def _no_activation(ward: Ward) -> Heal:
    return _activations(ward, nn.Identity(), "taking activations out")


def _double_softmax(ward: Ward) -> Heal:
    hook = _Becomes(_softmax)
    return _removing([_uncompiled(ward).register_forward_hook(hook, prepend=True)])


def _softmax(output: Any) -> Any:
    """Over the classes: behind the places of a sequence, before those of an image."""
    if not isinstance(output, Tensor) or output.dim() < 2:
        return output
    return torch.softmax(output, dim=-1 if output.dim() == 3 else 1)


def _detached(ward: Ward) -> Heal:
    _uncompiled(ward)
    modules = _with_weights(ward)[:-1]
    if not modules:
        raise CommandError("Expected at least two modules with weights to cut between.")
    hook = _Becomes(_cut)
    return _removing([modules[len(modules) // 2].register_forward_hook(hook, prepend=True)])


def _cut(output: Any) -> Any:
    return output.detach() if isinstance(output, Tensor) else output


# ---------------------------------------------------------------- inputs and labels


class _Given(Inert):
    """A pre-hook that changes the first argument; inert in copies: a replay has it changed."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not args or not torch.is_grad_enabled():
            return None
        return (self.function(args[0]), *args[1:])


def _given(ward: Ward, function: Callable[[Any], Any]) -> Heal:
    model = _uncompiled(ward)
    first = next(iter(_with_weights(ward)), None)
    if isinstance(first, nn.Embedding | nn.EmbeddingBag):
        raise CommandError("Expected inputs that are numbers, but the model takes tokens.")
    return _removing([model.register_forward_pre_hook(_Given(function), prepend=True)])


def _unnormalized(ward: Ward) -> Heal:
    return _given(ward, _times_255)


def _times_255(x: Any) -> Any:
    return x * 255 if isinstance(x, Tensor) and x.is_floating_point() else x


def _nan_in_batch(ward: Ward) -> Heal:
    done: list[bool] = []

    def poison(x: Any) -> Any:
        if done or not (isinstance(x, Tensor) and x.is_floating_point() and x.numel()):
            return x
        done.append(True)
        poisoned = x.clone()
        sample = poisoned[len(poisoned) // 2]
        sample.view(-1)[sample.numel() // 2] = float("nan")
        return poisoned

    return _given(ward, poison)


class _Dealt(Inert):
    """A pre-hook on the loss that permutes the targets, with random numbers of its own."""

    __slots__ = ("generator",)

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not torch.is_grad_enabled() or len(args) < 2 or not isinstance(args[1], Tensor):
            return None
        order = torch.randperm(len(args[1]), generator=self.generator).to(args[1].device)
        return (args[0], args[1][order], *args[2:])


def _shuffled_labels(ward: Ward) -> Heal:
    if ward.loss_fn is None:
        raise CommandError("Labels can be shuffled only if watch() was given a loss module.")
    return _removing([ward.loss_fn.register_forward_pre_hook(_Dealt(), prepend=True)])


class _Evaluates(Inert):
    """A pre-hook that puts the model into eval mode in training passes."""

    __slots__ = ()

    def __call__(self, module: nn.Module, _args: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled():
            module.eval()


def _eval_mode(ward: Ward) -> Heal:
    model = _uncompiled(ward)
    modes = {module: module.training for module in model.modules()}
    handle = model.register_forward_pre_hook(_Evaluates(), prepend=True)

    def heal() -> None:
        handle.remove()
        for module, training in modes.items():
            module.training = training

    return heal


# ---------------------------------------------------------------- parameters


def _with_weights(ward: Ward) -> list[nn.Module]:
    return [
        module
        for module in ward.model.modules()
        if isinstance(getattr(module, "weight", None), nn.Parameter) and module.weight.dim() > 1  # type: ignore[operator]
    ]


def _overwritten(tensors: Sequence[Tensor], change: Callable[[Tensor], Any]) -> Heal:
    """Changes values in place; healing writes back exactly what was there before."""
    before = [tensor.detach().clone() for tensor in tensors]
    with torch.no_grad():
        for tensor in tensors:
            change(tensor)

    def heal() -> None:
        with torch.no_grad():
            for tensor, old in zip(tensors, before, strict=True):
                tensor.copy_(old)

    return heal


def _large_weights(ward: Ward) -> Heal:
    weights = [p for p in ward.model.parameters() if p.dim() > 1]
    return _overwritten(weights, lambda weight: weight.mul_(10))


def _zero_weights(ward: Ward) -> Heal:
    hidden = _with_weights(ward)[:-1] or _with_weights(ward)
    weights: list[Tensor] = [m.weight for m in hidden if isinstance(m.weight, Tensor)]
    return _overwritten(weights, lambda weight: weight.fill_(0.01))


def _dead_bias(ward: Ward) -> Heal:
    hidden = _with_weights(ward)[:-1]
    biases = [m.bias for m in hidden if isinstance(getattr(m, "bias", None), Tensor)]
    if not biases:
        raise CommandError("Expected hidden modules with a bias, but the model has none.")
    return _overwritten([b for b in biases if isinstance(b, Tensor)], lambda bias: bias.fill_(-10))


def _frozen(ward: Ward) -> Heal:
    first = next((m for m in ward.model.modules() if list(m.parameters(recurse=False))), None)
    if first is None:
        raise CommandError("Expected a module with parameters, but the model has none.")
    held = [p for p in first.parameters(recurse=False) if p.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
        parameter.grad = None

    def heal() -> None:
        for parameter in held:
            parameter.requires_grad_(True)

    return heal


# ---------------------------------------------------------------- optimizer


def _lr_times(factor: float) -> Callable[[Ward], Heal]:
    def put(ward: Ward) -> Heal:
        groups = [
            group
            for reference in ward.optimizers
            if (optimizer := reference()) is not None
            for group in optimizer.param_groups
        ]
        before = [float(group["lr"]) for group in groups]
        for group, lr in zip(groups, before, strict=True):
            _set_lr(group, lr * factor)
        changed = [float(group["lr"]) for group in groups]

        def heal() -> None:
            """Where a schedule or a hand has moved it since, it stays moved by as much."""
            for group, lr, wrong in zip(groups, before, changed, strict=True):
                now = float(group["lr"])
                _set_lr(group, lr if now == wrong else now / factor)

        return heal

    return put


def _set_lr(group: dict[str, Any], lr: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def _no_zero_grad(ward: Ward) -> Heal:
    switch = ward.set_zero_grad
    if switch is None:
        raise CommandError("zero_grad cannot be switched here.")
    switch(False)
    return lambda: switch(True)


def _removing(handles: Sequence[Any]) -> Heal:
    def heal() -> None:
        for handle in handles:
            handle.remove()

    return heal


_FAULTS: dict[str, Callable[[Ward], Heal]] = {
    "sigmoid": _sigmoid,
    "no_activation": _no_activation,
    "large_weights": _large_weights,
    "zero_weights": _zero_weights,
    "dead_bias": _dead_bias,
    "lr_high": _lr_times(100.0),
    "lr_low": _lr_times(1e-3),
    "no_zero_grad": _no_zero_grad,
    "double_softmax": _double_softmax,
    "unnormalized": _unnormalized,
    "nan_in_batch": _nan_in_batch,
    "frozen": _frozen,
    "detached": _detached,
    "shuffled_labels": _shuffled_labels,
    "eval_mode": _eval_mode,
}
