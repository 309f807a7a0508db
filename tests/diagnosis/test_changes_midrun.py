"""What goes wrong in the middle of a run is found, with its step, and forgotten once healed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import inspector
from inspector.commands import Command, Controls
from inspector.diagnosis import Finding
from inspector.events import FaultInjected
from inspector.store.control import ControlWriter

torch.set_num_threads(1)


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(20, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 64), nn.ReLU(),
        nn.Linear(64, 5),
    )  # fmt: skip


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 5),
    )  # fmt: skip


def samples(shape: tuple[int, ...]) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(800) % 5
    centres = torch.randn(5, *shape, generator=generator)
    return TensorDataset(
        centres[labels] + 1.2 * torch.randn(800, *shape, generator=generator), labels
    )


class Training:
    """A watched loop with shuffled batches; commands come as from the page."""

    def __init__(self, path: Path, kind: str, *, adam: bool = False) -> None:
        torch.manual_seed(0)
        self.model = {"mlp": mlp, "cnn": cnn}[kind]()
        parameters = self.model.parameters()
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.Adam(parameters, lr=1e-3)
            if adam
            else torch.optim.SGD(parameters, lr=0.02, momentum=0.9)
        )
        self.loss_fn = nn.CrossEntropyLoss()
        self.batches = self._endless(samples((20,) if kind == "mlp" else (1, 12, 12)))
        self.watch = inspector.watch(
            self.model, self.optimizer, run_dir=path, name="run", loss_fn=self.loss_fn,
            controls=Controls(on_nonfinite="continue"), every=5,  # whatever the machine is doing
        )  # fmt: skip
        self.control = ControlWriter(self.watch.run_path)
        self.change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda x, y: (x, y)

    @staticmethod
    def _endless(data: TensorDataset) -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(data, 32, shuffle=True, generator=torch.Generator().manual_seed(1))
        return itertools.chain.from_iterable(itertools.repeat(loader))

    def steps(self, count: int) -> None:
        for inputs, labels in itertools.islice(self.batches, count):
            inputs, labels = self.change(inputs, labels)
            self.optimizer.zero_grad()
            loss = self.loss_fn(self.model(inputs), labels)
            self.watch.record(loss=loss)
            loss.backward()
            self.optimizer.step()

    def tell(self, **value: object) -> None:
        """Sends a command about a fault; steps until it has been answered."""
        command = self.control.send(Command(name="fault", value=value))
        until = time.monotonic() + 30
        while time.monotonic() < until:
            self.steps(1)
            self.watch._recorder.writer.flush()
            with self.run() as run:
                if any(getattr(s.event, "command_id", "") == command for s in run.events()):
                    return
        raise AssertionError(f"{value} was not answered")

    def run(self) -> inspector.Run:
        return inspector.open_run(self.watch.run_path)

    def alarms(self) -> list[Finding]:
        """What a person sees now, notes left out."""
        self.watch._recorder.writer.flush()
        with self.run() as run:
            return [finding for finding in run.findings() if finding.level != "note"]

    def close(self) -> None:
        self.watch.close()
        self.control.close()


FAULTS: dict[str, tuple[str, str | None, str | None]] = {
    "frozen": ("frozen_parameters", "0", "0"),
    "detached": ("frozen_parameters", "3", "4"),
    "large_weights": ("poor_initialization", None, None),
    "zero_weights": ("poor_initialization", None, None),
    "lr_high": ("lr_too_high", None, None),
    "lr_low": ("lr_too_low", None, None),
    "unnormalized": ("unnormalized_input", "0", "0"),
    "shuffled_labels": ("label_mismatch", None, None),
    "no_activation": ("missing_activation", None, None),
    "sigmoid": ("vanishing_gradient", "0", "0"),
    "double_softmax": ("double_softmax", None, None),
    "dead_bias": ("dead_relu", None, None),
    "no_zero_grad": ("missing_zero_grad", None, None),
    "eval_mode": ("mode_mistake", None, None),
}
"""Fault → code, and the module to blame in each network where one is."""


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_put_in_midrun_is_named_with_its_step_and_forgotten_when_healed(
    tmp_path: Path, fault: str, kind: str
) -> None:
    training = Training(tmp_path, kind, adam=fault == "shuffled_labels")
    training.steps(120)
    assert training.alarms() == []
    training.tell(action="inject", fault=fault, hidden=True)
    with training.run() as run:
        (since,) = [s.step for s in run.events() if isinstance(s.event, FaultInjected)]
    training.steps(60)
    found = training.alarms()
    code, *modules = FAULTS[fault]
    module = modules[kind == "cnn"]
    assert found and found[0].code == code, [(f.code, f.step, f.title) for f in found]
    assert abs(found[0].step - since) <= 10, found[0]
    assert module is None or found[0].module == module
    assert "no_shuffle" not in {finding.code for finding in found}
    assert all(f.step >= since - 5 for f in found if not f.consequence_of), [
        (f.code, f.step, f.title) for f in found
    ]
    training.tell(action="heal")
    training.steps(400)
    left = [(f.code, f.title) for f in training.alarms()]
    assert [one for one in left if one[0] != "nonfinite"] == [], "a NaN stays in the history"
    training.close()


def by_hand(training: Training, change: str) -> None:
    """The same, as a person does it in a script: no command, no event."""
    model, group = training.model, training.optimizer.param_groups[0]
    with torch.no_grad():
        match change:
            case "freeze":
                model[0].requires_grad_(False)
            case "cut":
                model[3].register_forward_hook(lambda _m, _a, output: output.detach())
            case "times ten":
                model.get_parameter("3.weight").mul_(10)
            case "alike":
                nn.init.constant_(model.get_parameter("3.weight"), 0.5)
            case "lr up":
                group["lr"] *= 100
            case "lr down":
                group["lr"] /= 1000
            case "inputs":
                training.change = lambda x, y: (x * 255, y)
            case "labels":
                training.change = lambda x, y: (x, y[torch.randperm(len(y))])
            case "activation":
                model[4] = nn.Identity()


@pytest.mark.parametrize(
    ("change", "code", "module"),
    [
        ("freeze", "frozen_parameters", "0"),
        ("cut", "frozen_parameters", "3"),
        ("times ten", "poor_initialization", "3"),
        ("alike", "poor_initialization", "3"),
        ("lr up", "lr_too_high", None),
        ("lr down", "lr_too_low", None),
        ("inputs", "unnormalized_input", "0"),
        ("labels", "label_mismatch", None),
        ("activation", "missing_activation", "5"),
    ],
)
def test_what_a_person_changes_by_hand_is_found_by_the_next_burst(
    tmp_path: Path, change: str, code: str, module: str | None
) -> None:
    training = Training(tmp_path, "mlp", adam=True)
    training.steps(120)
    by_hand(training, change)
    training.steps(80)
    found = training.alarms()
    training.close()
    assert found and found[0].code == code, [(f.code, f.step, f.title) for f in found]
    assert 120 <= found[0].step <= 145, "the next burst begins at step 142"
    assert module is None or found[0].module == module
    assert "no_shuffle" not in {finding.code for finding in found}


def sound(training: Training, habit: str) -> None:
    """400 steps of something unusual that is no mistake."""
    group = training.optimizer.param_groups[0]
    lr, model = group["lr"], training.model
    average = [p.detach().clone() for p in model.parameters()]
    if habit == "warm-up in one step":
        group["lr"] = lr / 20
    for step in range(400):
        if habit == "steps of ten" and step in (150, 300):
            group["lr"] /= 10
        elif habit == "warm-up in one step" and step == 50:
            group["lr"] = lr
        elif habit == "turns":
            model[0].requires_grad_(step % 4 != 0)
        elif habit == "averaged" and step % 5 == 4:
            with torch.no_grad():
                for slow, fast in zip(average, model.parameters(), strict=True):
                    slow.lerp_(fast, 0.5)
                    fast.copy_(slow)
        training.steps(1)


@pytest.mark.parametrize("habit", ["steps of ten", "warm-up in one step", "turns", "averaged"])
def test_unusual_but_sound_training_is_left_alone(tmp_path: Path, habit: str) -> None:
    training = Training(tmp_path, "mlp")
    sound(training, habit)
    found = training.alarms()
    training.close()
    assert found == []
