"""Faults are put in and healed exactly; the finder leaves no trace; remedies get a verdict."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inspector
from inspector.commands import Command, Controls
from inspector.config import RunConfig
from inspector.errors import CommandError
from inspector.events import (
    CommandRefused,
    FaultHealed,
    FaultInjected,
    FaultRevealed,
    LrFound,
    Origin,
    RemedyVerdict,
)
from inspector.faults import FAULTS
from inspector.store.control import ControlWriter
from inspector.training.lr_finder import find_lr, loader_batches, steepest
from inspector.training.runner import prepare, train_and_record
from inspector.watching import Watch


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


def outside(loop: Loop) -> Any:
    """What a fault could have left behind, besides the weights that training moves."""
    return {
        "lr": [group["lr"] for group in loop.optimizer.param_groups],
        "grad": [p.requires_grad for p in loop.model.parameters()],
        "modes": [m.training for m in loop.model.modules()],
        "pre": [len(m._forward_pre_hooks) for m in (*loop.model.modules(), loop.loss_fn)],
        "zero": loop.watch._recorder.observer.zero_grad,
        "types": [type(m) for m in loop.model.modules()],
    }


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_every_fault_goes_in_is_revealed_and_heals_exactly(tmp_path: Path, fault: str) -> None:
    loop = Loop(tmp_path)
    loop.step(3)
    before, expected = outside(loop), loop.model(loop.x).detach().clone()
    weights = copy.deepcopy(loop.model.state_dict())
    hidden = loop.tell("fault", action="inject", fault=fault, hidden=True)
    (injected,) = [event for event in hidden if isinstance(event, FaultInjected)]
    assert injected.fault == "" and FAULTS[fault].title not in str(hidden)
    loop.step(3)
    revealed = loop.tell("fault", action="reveal")
    assert [e.fault for e in revealed if isinstance(e, FaultRevealed)] == [FAULTS[fault].title]
    healed = loop.tell("fault", action="heal")
    assert [e.fault for e in healed if isinstance(e, FaultHealed)] == [FAULTS[fault].title]
    assert outside(loop) == before
    loop.model.load_state_dict(weights)
    assert torch.equal(loop.model(loop.x), expected)
    loop.close().close()


class Functional(nn.Module):
    """Whose activations are functions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(torch.relu(self.first(x)))
        assert isinstance(out, Tensor)
        return out


@pytest.mark.parametrize(
    ("fault", "other"), [("sigmoid", torch.sigmoid), ("no_activation", lambda x: x)]
)
def test_activations_that_are_functions_are_reached(tmp_path: Path, fault: str, other: Any) -> None:
    model = Functional()
    loop = Loop(tmp_path, model)
    loop.step(3)
    loop.tell("fault", action="inject", fault=fault)
    assert torch.equal(model(loop.x), model.second(other(model.first(loop.x))))
    loop.tell("fault", action="heal")
    assert torch.equal(model(loop.x), model.second(torch.relu(model.first(loop.x))))
    assert all("forward" not in vars(part) for part in model.modules())
    loop.close().close()


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 1, 3), (2, 3, 1)])
@pytest.mark.parametrize("faults", [
    ("lr_high", "lr_high", "lr_low"), ("large_weights", "zero_weights", "large_weights"),
    ("no_zero_grad", "no_zero_grad", "eval_mode"), ("eval_mode", "eval_mode", "sigmoid"),
])  # fmt: skip
def test_faults_that_lie_on_each_other_are_healed_in_any_order(
    tmp_path: Path, faults: tuple[str, ...], order: tuple[int, ...]
) -> None:
    loop = Loop(tmp_path)
    loop.step(2)
    before = outside(loop)
    interventions = loop.watch._recorder._interventions
    weights = bits(loop.model.state_dict())
    for fault in faults:  # between two steps, so that nothing else moves the weights
        interventions.apply(Command(name="fault", value={"action": "inject", "fault": fault}))
    for number in order:
        interventions.apply(Command(name="fault", value={"action": "heal", "number": number}))
    assert outside(loop) == before
    assert bits(loop.model.state_dict()) == weights
    loop.close().close()


@pytest.mark.parametrize("fault", [key for key, fault in FAULTS.items() if fault.wrecks])
def test_what_a_fault_has_wrecked_is_healed(tmp_path: Path, fault: str) -> None:
    loop = Loop(tmp_path)
    loop.watch._recorder.steering.apply(
        Command(name="set", control="on_nonfinite", value="continue")
    )
    loop.step(10)
    interventions = loop.watch._recorder._interventions
    before = bits([loop.model.state_dict(), loop.optimizer.state_dict()])
    interventions.apply(Command(name="fault", value={"action": "inject", "fault": fault}))
    loop.step(15)
    interventions.apply(Command(name="fault", value={"action": "heal"}))
    assert bits([loop.model.state_dict(), loop.optimizer.state_dict()]) == before
    loop.step(30)
    assert loop.step() < 0.9 * 1.0986  # it learns again
    loop.close().close()


def test_a_rate_that_was_moved_while_it_was_wrong_stays_moved(tmp_path: Path) -> None:
    from inspector.training.faults import Ward, inject

    loop = Loop(tmp_path)
    group = loop.optimizer.param_groups[0]
    heal = inject("lr_high", Ward(loop.model, [loop.optimizer]))
    group["lr"] *= 0.5  # a schedule
    heal()
    assert group["lr"] == pytest.approx(0.025)
    loop.close().close()


@pytest.mark.parametrize("fault", ["sigmoid", "double_softmax", "detached", "unnormalized"])
def test_a_compiled_model_is_not_broken_without_effect(fault: str) -> None:
    from inspector.training.faults import Ward, inject

    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    model.compile(backend="eager")
    with pytest.raises(CommandError, match="is not compiled"):
        inject(fault, Ward(model, []))


def test_the_softmax_goes_over_the_classes_and_tokens_stay_tokens() -> None:
    from inspector.training.faults import Ward, inject

    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 7))
    inject("double_softmax", Ward(model, []))
    torch.testing.assert_close(model(torch.zeros(2, 3, dtype=torch.long)).sum(-1), torch.ones(2, 3))
    with pytest.raises(CommandError, match="the model takes tokens"):
        inject("unnormalized", Ward(model, []))


def test_weights_are_put_back_bit_by_bit(tmp_path: Path) -> None:
    from inspector.training.faults import Ward, inject

    loop = Loop(tmp_path)
    loop.step()
    for fault in ("large_weights", "zero_weights", "dead_bias"):
        before = bits(loop.model.state_dict())
        heal = inject(fault, Ward(loop.model, [loop.optimizer], loop.loss_fn))
        assert bits(loop.model.state_dict()) != before
        heal()
        assert bits(loop.model.state_dict()) == before
    loop.close().close()


@pytest.mark.parametrize(("fault", "effect"), [
    ("dead_bias", lambda run: run.series("activation_zeros", "1").values[-1] > 0.9),
    ("frozen", lambda run: run.series("grad_norm", "0.weight").steps[-1]
        < run.series("grad_norm", "2.weight").steps[-1]),
    ("no_zero_grad", lambda run: run.series("backward_passes").values[-1] >= 4),
    ("lr_high", lambda run: run.series("lr").values[-1] == pytest.approx(5.0)),
    ("large_weights", lambda run: run.series("weight_norm", "0.weight").values.max()
        > 5 * run.series("weight_norm", "0.weight").values[0]),
    ("shuffled_labels", lambda run: run.series("loss").values[-1]
        > 1.02 * run.series("loss").values[-8]),
])  # fmt: skip
def test_a_fault_shows_in_what_is_recorded(tmp_path: Path, fault: str, effect: Any) -> None:
    loop = Loop(tmp_path)
    loop.step(30)
    loop.tell("fault", action="inject", fault=fault)
    loop.step(5)
    with loop.close() as run:
        assert effect(run)


def test_a_nan_in_a_batch_is_found_by_the_time_machine(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.step(3)
    loop.tell("fault", action="inject", fault="nan_in_batch", hidden=True)
    loop.step(2)
    assert all(bool(p.isfinite().all()) for p in loop.model.parameters())
    with loop.close() as run:
        (origin,) = [s.event for s in run.events() if isinstance(s.event, Origin)]
    assert (origin.phase, origin.samples) == ("data", [32])


def test_a_fault_that_does_not_fit_is_refused_in_words(tmp_path: Path) -> None:
    loop = Loop(tmp_path, nn.Sequential(nn.Linear(6, 3)))
    loop.step()
    events = loop.tell("fault", action="inject", fault="sigmoid")
    assert [e.reason for e in events if isinstance(e, CommandRefused)] == [
        "Expected activations for sigmoid everywhere, but the model has none."
    ]
    loop.close().close()


# ---------------------------------------------------------------- learning rate finder


def test_the_finder_leaves_everything_as_it_was_bit_by_bit(tmp_path: Path) -> None:
    loop = Loop(tmp_path, nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(),
                                        nn.ReLU(), nn.Linear(16, 3)))  # fmt: skip
    loop.step(5)
    state = lambda: bits(  # noqa: E731
        [loop.model.state_dict(), loop.optimizer.state_dict(), torch.get_rng_state(),
         [p.grad for p in loop.model.parameters()]]
    )  # fmt: skip
    before = state()
    find_lr(loop.model, loop.optimizer, loop.loss_fn, [(loop.x, loop.y)], steps=40)
    assert state() == before
    loop.close().close()


def test_the_finder_suggests_a_rate_that_learns_and_stops_when_it_diverges(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.step(2)
    events = loop.tell("lr_finder", steps=100, low=1e-5, high=1000.0)
    (found,) = [event for event in events if isinstance(event, LrFound)]
    assert found.suggestion is not None and 1e-3 < found.suggestion < 5
    assert found.steps < 100 and ("four times" in found.note or "not finite" in found.note)
    with loop.close() as run:
        document = run.document("lr_finder")
    assert document is not None and len(document["lrs"]) == len(document["losses"]) == found.steps


def test_the_finder_takes_batches_of_any_kind_and_refuses_what_it_cannot_try() -> None:
    model = nn.Linear(3, 1)
    batch = {"x": torch.randn(8, 3), "y": torch.randn(8, 1)}

    def loss_of(model: nn.Module, batch: Any) -> Tensor:
        return nn.functional.mse_loss(model(batch["x"]), batch["y"])

    optimizer = torch.optim.SGD(model.parameters())
    curve = find_lr(model, optimizer, loss_of, [batch], low=1e-4, high=10.0)
    assert curve.suggestion is not None and 1e-3 < curve.suggestion < 1
    with pytest.raises(CommandError, match="LBFGS evaluates the loss several times"):
        find_lr(model, torch.optim.LBFGS(model.parameters()), loss_of, [batch])


def test_batches_of_a_loader_may_be_of_any_kind() -> None:
    batch = ({"tokens": torch.ones(2)}, ["text"])
    assert next(iter(loader_batches([batch], torch.device("cpu")))) == batch


def test_the_finder_serves_a_training_step_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, in_features=64, num_classes=10):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(in_features, num_classes))\n"
        "def training_step(model, batch):\n"
        "    x, y = batch\n"
        "    return nn.functional.cross_entropy(model(x), y)\n"
    )
    config = RunConfig(model=f"file:{tmp_path}/mine.py:Net", steps=4, torch_threads=1)
    task = prepare(config, tmp_path / "runs", "run")
    assert not isinstance(task, str)
    paths = []

    def started(watch: Watch) -> None:
        paths.append(watch.run_path)
        watch._recorder._inbox.append(Command(name="lr_finder", value={"steps": 3}))

    train_and_record(task, tmp_path / "runs", "run", started)
    with inspector.open_run(paths[0]) as run:
        events = [stored.event for stored in run.events()]
    assert [event.steps for event in events if isinstance(event, LrFound)] == [3]


def test_steepest_descent_of_a_known_curve() -> None:
    lrs = [10 ** (-5 + 0.1 * i) for i in range(60)]
    losses = [2.0 - 1.5 / (1 + 2.718281828 ** (-(i - 30) / 2)) for i in range(60)]
    found = steepest(lrs, losses)
    assert found is not None and abs(lrs.index(found) - 30) <= 1
    assert steepest(lrs, [1.0 + i for i in range(60)]) is None
    lucky = losses[:45] + [2.0, 1.9] + [0.1] * 13  # a fall after the loss has risen again
    assert steepest(lrs, lucky) == found


# ---------------------------------------------------------------- remedies


class DeepSigmoid(nn.Sequential):
    def __init__(self) -> None:
        parts: list[nn.Module] = [nn.Linear(6, 32), nn.Sigmoid()]
        for _ in range(8):
            parts += [nn.Linear(32, 32), nn.Sigmoid()]
        super().__init__(*parts, nn.Linear(32, 3))


def test_vanishing_gradients_are_cured_by_new_weights_and_the_verdict_says_so(
    tmp_path: Path,
) -> None:
    loop = Loop(tmp_path, DeepSigmoid())
    loop.step(30)
    loop.tell(
        "remedy", action="reinitialize", method="xavier", code="vanishing_gradient",
        quantity="grad_norm", subject="0.weight", threshold=1e-3, side="below",
        text="New weights (Xavier)",
    )  # fmt: skip
    loop.step(60)
    with loop.close() as run:
        (verdict,) = [s.event for s in run.events() if isinstance(s.event, RemedyVerdict)]
    assert verdict.verdict == "recovered", verdict
    assert verdict.before is not None and verdict.after is not None
    assert verdict.before < 1e-4 < 1e-2 < verdict.after


def test_a_control_as_a_remedy_is_judged_fifty_steps_later(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.watch._recorder.observer.zero_grad = False
    loop.step(40)
    loop.tell("remedy", action="set", control="zero_grad", value=True, code="missing_zero_grad",
              quantity="backward_passes", threshold=1.5, text="Turn zero_grad on")  # fmt: skip
    loop.step(49)
    loop.step(5)
    with loop.close() as run:
        verdicts = [s for s in run.events() if isinstance(s.event, RemedyVerdict)]
        (stored,) = verdicts
        assert stored.step - stored.event.applied_at == 50  # type: ignore[attr-defined]
        assert stored.event.verdict == "recovered"  # type: ignore[attr-defined]


def test_unfreezing_brings_parameters_into_the_optimizer(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    loop = Loop(tmp_path, model)
    loop.optimizer.param_groups[0]["params"] = list(model[2].parameters())
    loop.step(2)
    before = model[0].weight.detach().clone()
    loop.tell("remedy", action="unfreeze", module="0")
    loop.step(3)
    assert not torch.equal(model[0].weight, before)
    loop.close().close()


def test_going_back_restores_a_kept_state_and_lowers_the_rate(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.step(25)
    loop.tell("rewind", lr_factor=0.1)
    assert loop.optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
    with loop.close() as run:
        kinds = [stored.event.kind for stored in run.events()]
    assert "rewound" in kinds


@pytest.mark.parametrize(("name", "value", "said"), [
    ("remedy", {"action": "dance"}, "action of remedy must be one of set, reinitialize, unfreeze"),
    ("remedy", {"action": "set", "control": "lr", "value": -1}, "lr must be 0 or greater"),
    ("remedy", {"action": "reinitialize", "method": "zen"}, "method must be he or xavier"),
    ("fault", {"action": "inject"}, "fault must be the name of a fault"),
    ("fault", None, "fault needs a dict"),
    ("lr_finder", {"low": 1.0, "high": 0.1}, "low of lr_finder must be less than high"),
    ("lr_finder", {"speed": 1}, "lr_finder has no setting 'speed'"),
    ("rewind", {"lr_factor": -1}, "lr_factor of rewind must be a positive number"),
])  # fmt: skip
def test_unusable_commands_are_refused_before_they_are_sent(
    name: Any, value: Any, said: str
) -> None:
    with pytest.raises(CommandError, match=said):
        Command(name=name, value=value)


def test_every_fault_says_what_it_does() -> None:
    for fault in FAULTS.values():
        told = (fault.key, fault.title, fault.about, fault.symptom, fault.codes)
        assert all(told), fault


def test_the_documentation_lists_every_fault() -> None:
    text = (Path(__file__).parents[2] / "docs" / "break-it.md").read_text("utf-8")
    for fault in FAULTS.values():
        assert f"`{fault.key}`" in text and fault.about in text
