"""The backward pass of one step, node by node: watched from its forward pass to the boundary."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor


class BackwardSnapshot:
    """Arms at a boundary, takes the loss when it is recorded, finishes at the next boundary.

    Waiting for a non-finite gradient arms it anew for every step, until one comes.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = weakref.ref(model)
        self._tags: Any = None
        self._forward: Any = None
        self._probe: Any = None
        self._recording: Any = None
        self._wanted: dict[str, Any] = {}
        self.armed = False

    def arm(self, wanted: dict[str, Any]) -> None:
        """From now on operations are tagged and remembered; see ``Command`` for ``wanted``."""
        model = self._model()
        if model is None:
            return
        self.disarm()
        from inspector.autograd.calls import ForwardCalls
        from inspector.autograd.module_probe import ModuleProbe
        from inspector.autograd.owners import GraphTags

        self.armed = True
        self._wanted = wanted
        self._tags = GraphTags(model).install()
        self._forward = ForwardCalls(model)
        if path := wanted.get("module"):
            self._probe = ModuleProbe(model.get_submodule(path), path)

    def take(self, loss: Tensor, step: int) -> None:
        """Watches the backward pass that follows; a pass that is over cannot be taken."""
        model = self._model()
        if model is None or self._recording is not None:
            return
        from inspector.autograd.replay import BackwardRecording

        self._forward.leave()
        self._recording = BackwardRecording(
            loss, model, step=step, tags=self._tags, calls=self._forward.calls
        )
        self._untag()

    def finish(self) -> dict[str, Any] | None:
        """The document, if a pass was recorded that is what was waited for; else None.

        Without one it stays armed, anew.
        """
        recording, self._recording = self._recording, None
        if recording is None:
            return None
        if self._wanted.get("when") == "nonfinite" and not recording.nonfinite:
            recording.drop()
            self.arm(self._wanted)
            return None
        document: dict[str, Any] = recording.finish()
        if self._probe is not None:
            document["module_check"] = self._probe.finish()
        self.disarm()
        return document

    def disarm(self) -> None:
        """Takes everything off; safe to call twice."""
        self._untag()
        if self._forward is not None:
            self._forward.leave()
        if self._recording is not None:
            self._recording.drop()
        if self._probe is not None:
            self._probe.remove()
        self._forward = self._recording = self._probe = None
        self.armed = False

    def _untag(self) -> None:
        if self._tags is not None:
            self._tags.remove()
            self._tags = None
