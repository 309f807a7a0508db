"""A small watched training that is stepped by hand and told commands through the one door."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import inspector
from inspector.commands import Command, Controls
from inspector.store.control import ControlWriter


class Loop:
    """A small watched training, stepped by hand; commands come through the one door."""

    def __init__(self, path: Path, model: nn.Module | None = None, lr: float = 0.05) -> None:
        torch.manual_seed(0)
        self.model = model or nn.Sequential(
            nn.Linear(6, 16), nn.ReLU(inplace=True), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr, momentum=0.9)
        self.loss_fn = nn.CrossEntropyLoss()
        self.x, self.y = torch.randn(64, 6), torch.arange(64) % 3
        self.watch = inspector.watch(
            self.model, self.optimizer, run_dir=path, name="run", every=1, loss_fn=self.loss_fn,
            controls=Controls(on_nonfinite="skip"),
        )  # fmt: skip
        self.control = ControlWriter(self.watch.run_path)

    def step(self, count: int = 1) -> float:
        for _ in range(count):
            self.optimizer.zero_grad()
            loss = self.loss_fn(self.model(self.x), self.y)
            self.watch.record(loss=loss)
            loss.backward()
            self.optimizer.step()
        return float(loss)

    def tell(self, name: Any, **value: Any) -> list[Any]:
        """Sends a command, steps until it is answered, gives the events since."""
        with self.run() as run:
            seq = max((stored.seq for stored in run.events()), default=0)
        command = self.control.send(Command(name=name, value=value))
        until = time.monotonic() + 30
        while time.monotonic() < until:
            self.step()
            self.watch._recorder.writer.flush()
            with self.run() as run:
                events = [stored.event for stored in run.events(after=seq)]
            if any(getattr(event, "command_id", "") == command for event in events):
                return events
        raise AssertionError(f"{name} {value} was not answered")

    def run(self) -> inspector.Run:
        return inspector.open_run(self.watch.run_path)

    def close(self) -> inspector.Run:
        self.watch.close()
        self.control.close()
        return self.run()


def bits(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [bits(part) for part in value]
    return value
