"""Early stopping: training ends when the validation loss no longer falls."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True)
class EarlyStopping:
    """Counts validations without a lower loss than the best so far.

    Attributes:
        patience: so many in a row end the training; 0 never does.
        best: lowest validation loss, and ``best_epoch`` (0-based) when it was.
        waited: validations since then.
    """

    patience: int
    best: float = math.inf
    best_epoch: int = 0
    waited: int = 0

    def update(self, epoch: int, val_loss: float | None) -> bool:
        """Whether training ends after this epoch; a loss that is NaN is no better than any."""
        if not self.patience or val_loss is None:
            return False
        if val_loss < self.best:
            self.best, self.best_epoch, self.waited = val_loss, epoch, 0
        else:
            self.waited += 1
        return self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on counting; the patience stays that of this run."""
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.waited = state["waited"]
