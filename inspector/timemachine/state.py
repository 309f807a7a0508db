"""A copy of everything a training step changes: parameters, buffers, optimizer state."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer


class StateCopy:
    """One copy; its memory is used again by the next :meth:`take`.

    Learning rates and the like are not part of it: whoever goes back keeps what is in force now.

    Attributes:
        step: the step that was about to run, 0-based; -1 while nothing was taken.
        beside: what the loop keeps with it, to go on from there; None where it keeps nothing.
    """

    def __init__(self) -> None:
        self.step = -1
        self.beside: Any = None
        self._copies: list[Tensor] = []
        self._keys: list[tuple[int, Any] | None] = []
        self._plain: dict[tuple[int, Any], Any] = {}

    def take(
        self, model: nn.Module, optimizers: Sequence[Optimizer], step: int, beside: Any = None
    ) -> None:
        """Copies the state as it is now."""
        sources, self._keys, plain = _collect(model, optimizers)
        self._plain = {key: copy.deepcopy(value) for key, value in plain.items()}
        with torch.no_grad():
            if _alike(self._copies, sources):
                _copy(self._copies, sources)
            else:
                self._copies = [source.clone() for source in sources]
        self.step, self.beside = step, beside

    def restore(self, model: nn.Module, optimizers: Sequence[Optimizer]) -> bool:
        """Writes the copy back, in place; False when the model has other tensors by now."""
        targets, keys, _ = _collect(model, optimizers)
        here = {key: target for key, target in zip(keys, targets, strict=True) if key}
        own = [t for key, t in zip(keys, targets, strict=True) if key is None]
        kept = [c for key, c in zip(self._keys, self._copies, strict=True) if key is None]
        if self.step < 0 or not _alike(kept, own):
            return False
        with torch.no_grad():
            _copy(own, kept)
            for place, values in self._states().items():
                _put(optimizers, place, values, here)
            _drop_younger(optimizers, {number for number, _ in self._states()})
        return True

    def contents(
        self, model: nn.Module, optimizers: Sequence[Optimizer]
    ) -> tuple[dict[int, Tensor], dict[int, dict[Any, Any]]] | None:
        """The copies by the ``id`` of whose they are, and optimizer states by parameter number.

        None when the model has other tensors by now. Nothing is copied: the next :meth:`take`
        writes into these tensors.
        """
        own = _own(model, optimizers)
        kept = [c for key, c in zip(self._keys, self._copies, strict=True) if key is None]
        if self.step < 0 or not _alike(kept, own):
            return None
        states: dict[int, dict[Any, Any]] = {}
        for (number, name), value in self._states().items():
            states.setdefault(number, {})[name] = value
        return {id(tensor): copied for tensor, copied in zip(own, kept, strict=True)}, states

    def finite(self) -> bool:
        """Whether every number in the copy is finite."""
        return all(
            bool(torch.isfinite(copied).all())
            for copied in self._copies
            if copied.is_floating_point() or copied.is_complex()
        )

    def nbytes(self) -> int:
        """Memory of the copy."""
        return sum(copied.numel() * copied.element_size() for copied in self._copies)

    def _states(self) -> dict[tuple[int, Any], Any]:
        kept = {
            key: copied
            for key, copied in zip(self._keys, self._copies, strict=True)
            if key is not None
        }
        return {**kept, **self._plain}


def bytes_needed(model: nn.Module, optimizers: Sequence[Optimizer]) -> int:
    """What a copy of the state as it is now would take."""
    sources, _, _ = _collect(model, optimizers)
    return sum(source.numel() * source.element_size() for source in sources)


def random_state() -> list[Tensor]:
    """The CPU's generator, then every CUDA device's, where CUDA is in use."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states += torch.cuda.get_rng_state_all()
    return states


def set_random_state(states: Sequence[Tensor]) -> None:
    """What :func:`random_state` gave."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(list(states[1:]))


def _collect(
    model: nn.Module, optimizers: Sequence[Optimizer]
) -> tuple[list[Tensor], list[tuple[int, Any] | None], dict[tuple[int, Any], Any]]:
    """All tensors, their place in an optimizer's state (None for the model's), other values."""
    tensors = [tensor.detach() for tensor in _own(model, optimizers)]
    keys: list[tuple[int, Any] | None] = [None] * len(tensors)
    plain: dict[tuple[int, Any], Any] = {}
    for number, (optimizer, parameter) in enumerate(_optimized(optimizers)):
        for name, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors.append(value.detach())
                keys.append((number, name))
            else:
                plain[number, name] = value
    return tensors, keys, plain


def _own(model: nn.Module, optimizers: Sequence[Optimizer]) -> list[Tensor]:
    """Parameters and buffers of the model, then what else is optimized."""
    tensors: list[Tensor] = [
        tensor for tensor in (*model.parameters(), *model.buffers()) if not is_lazy(tensor)
    ]
    known = {id(p) for p in model.parameters()}
    for _, parameter in _optimized(optimizers):
        if id(parameter) not in known:
            known.add(id(parameter))
            tensors.append(parameter)
    return tensors


def _optimized(optimizers: Sequence[Optimizer]) -> Iterator[tuple[Optimizer, Tensor]]:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                yield optimizer, parameter


def _put(
    optimizers: Sequence[Optimizer],
    place: tuple[int, Any],
    value: Any,
    here: dict[tuple[int, Any], Tensor],
) -> None:
    target = here.get(place)
    if target is not None and isinstance(value, Tensor) and target.shape == value.shape:
        target.copy_(value)
        return
    optimizer, parameter = list(_optimized(optimizers))[place[0]]
    kept = value.clone() if isinstance(value, Tensor) else copy.deepcopy(value)
    optimizer.state[parameter][place[1]] = kept


def _drop_younger(optimizers: Sequence[Optimizer], known: set[int]) -> None:
    """Parameters that had no optimizer state when the copy was made have none again."""
    for number, (optimizer, parameter) in enumerate(_optimized(optimizers)):
        if number not in known:
            optimizer.state.pop(parameter, None)


def _alike(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(some) == len(others) and all(
        a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
        for a, b in zip(some, others, strict=True)
    )


def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    if targets:
        torch._foreach_copy_(list(targets), list(sources))
