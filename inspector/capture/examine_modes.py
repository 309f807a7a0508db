"""Train and eval mode of the model, whenever it is called."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor, nn

from inspector.capture.parameters import plain

_LIMIT = 400  # steps that are remembered; modes repeat, so early ones suffice


class ModeFacts:
    """In which mode training passes (with gradients) and other passes (without) were made."""

    def __init__(self, model: nn.Module) -> None:
        self._model = weakref.ref(model)
        self._sensitive = [
            (plain(path), weakref.ref(module))
            for path, module in model.named_modules()
            if _is_sensitive(module)
        ]
        self._training_passes = 0
        self._since_eval = 0
        self._step, self._passes = -1, 0
        self._repeated: list[int] = []
        self._eval_steps: list[int] = []
        self._partly: dict[str, int] = {}
        self._without_gradient: dict[str, list[int]] = {"train": [], "eval": []}

    @property
    def sensitive(self) -> bool:
        """Whether any module computes something else in eval mode."""
        return bool(self._sensitive)

    def forward(self, module: nn.Module, step: int, result: Tensor | None) -> None:
        """One call of the model; ``result`` is its output where gradients are recorded."""
        if not self._sensitive:
            return
        if result is None:
            _note(self._without_gradient["train" if module.training else "eval"], step)
            return
        if not module.training:
            # Validation without no_grad() looks like this too: only a backward pass tells.
            result.register_hook(_Backward(self, step))  # type: ignore[no-untyped-call]
            return
        self._training_passes += 1
        self._since_eval += 1
        self._passes = self._passes + 1 if step == self._step else 1
        self._step = step
        if self._passes == 2:
            _note(self._repeated, step)
        for path, reference in self._sensitive:
            part = reference()
            if part is not None and not part.training:
                self._partly[path] = self._partly.get(path, 0) + 1

    def trained_in_eval(self, step: int) -> None:
        """A backward pass through an output that was made in eval mode."""
        self._training_passes += 1
        self._since_eval = 0
        _note(self._eval_steps, step)

    def document(self) -> dict[str, Any]:
        return {
            "sensitive": [path for path, _ in self._sensitive],
            "training_passes": self._training_passes,
            "eval_steps": self._eval_steps,
            "passes_since_eval": self._since_eval,
            "partly_eval": self._partly,
            "repeated_pass_steps": self._repeated,
            "no_grad_train_steps": self._without_gradient["train"],
            "no_grad_eval_steps": self._without_gradient["eval"],
        }


class _Backward:
    """A tensor hook that tells of a backward pass; keeps no tensor."""

    __slots__ = ("facts", "step")

    def __init__(self, facts: ModeFacts, step: int) -> None:
        self.facts = weakref.ref(facts)
        self.step = step

    def __call__(self, _gradient: Tensor) -> None:
        facts = self.facts()
        if facts is not None:
            facts.trained_in_eval(self.step)


def _is_sensitive(module: nn.Module) -> bool:
    """Whether the module computes something else in eval mode."""
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return bool(module.track_running_stats)
    return isinstance(module, nn.RNNBase | nn.MultiheadAttention) and module.dropout > 0


def _note(steps: list[int], step: int) -> None:
    if len(steps) < _LIMIT and (not steps or steps[-1] != step):
        steps.append(step)
