"""Faults are put in and healed exactly; unusable commands are refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inspector.commands import Command
from inspector.errors import CommandError
from inspector.events import (
    CommandRefused,
    FaultHealed,
    FaultInjected,
    FaultRevealed,
    Origin,
)
from inspector.faults import FAULTS
from tests.faults.loop import Loop, bits


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


# ---------------------------------------------------------------- what is refused, what is said


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
