"""Fully measured steps that Python does not attend say the same as those that it attends."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listening import Listening, observe, values
from test_unchanged import assert_same, belongings, tensors
from torch import Tensor, nn
from zoo import ZOO, Case, mlp

import inspector
from inspector.capture import native
from inspector.capture.measured import Measured, Table
from inspector.capture.observer import Observer
from inspector.capture.quiet import NOWHERE, Column
from inspector.capture.skips import Skipped
from inspector.commands import Command
from inspector.events import NonFinite, StepSkipped

pytestmark = pytest.mark.skipif(native.load() is None, reason="no C compiler here")
STEPS = 14
TIMES = ("step_time", "overhead")
# Loops with something in them that the extension leaves to Python.
ATTENDED = {
    "amp_fused", "amp_plain", "attention", "autocast", "bfloat16", "compiled_after_watching",
    "compiled_and_called_before_watching", "compiled_in_place", "complex_parameters", "float16",
    "float64", "gan", "gan_critic_only", "integer_and_float8_parameters", "lbfgs",
    "partly_on_meta", "scripted", "sparse_gradients",
}  # fmt: skip


class Leaving(Listening):
    """Leaves to the extension whatever it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.unattended = 0
        self.observer: Observer | None = None

    def on_steps(self, first: int, columns: dict[str, Column], *tables: Table | None) -> None:
        for at in range(len(next(iter(columns.values())))):
            numbers = {name: float(column[at]) for name, column in columns.items()}
            given = {name: value for name, value in numbers.items() if value != NOWHERE}
            rows = [None if t is None else Table(t.keys, t.values[at].copy()) for t in tables]
            self.rows.append(Measured(first + at, True, given, *rows))
            self.unattended += tables[0] is not None

    def on_boundary(self) -> None:
        if self.observer is not None and self.observer.ordinary:
            self.observer.hand_over(10**12)


def iterate(case: Case, observer: Observer, listening: Leaving) -> None:
    """One iteration, whose loss is recorded after the step, as :meth:`Watch.record` does."""
    loss = case.iterate().detach()
    if not observer.clock.pulse.take(loss, {}) and observer.record({"loss": loss}):
        listening.on_boundary()


def run(case: Case, *, leave: bool, steps: int = STEPS, before: Any = None) -> Leaving:
    """Trains, and records each loss after its step; ``before`` is called with each step."""
    listening = Leaving()
    observer, _ = observe(case, listening=listening, scaler=case.scaler)
    listening.observer = observer if leave else None
    for step in range(steps):
        if before is not None:
            before(step)
        iterate(case, observer, listening)
    observer.close()
    assert [str(error) for _, error in listening.failures] == []
    return listening


def numbers(row: Measured) -> tuple[Any, ...]:
    """All that is said of a step, comparable to the last bit; without the times."""
    scalars = {
        name: str(np.float32(value))  # all NaN are alike
        for name, value in row.scalars.items()
        if not name.startswith(TIMES)
    }
    tables = [
        None if table is None else [str(value) for value in table.values] + [str(table.present)]
        for table in (row.parameters, row.modules)
    ]
    return row.step, scalars, tables, row.onset, row.skipped


@pytest.mark.parametrize("name", sorted(ZOO))
def test_the_same_numbers(name: str) -> None:
    if "scripted" in name:  # its first runs in a process differ: the JIT is still profiling
        run(ZOO[name](), leave=False)
    torch.manual_seed(1)
    attended = run(case := ZOO[name](), leave=False)
    torch.manual_seed(1)
    left = run(other := ZOO[name](), leave=True)
    assert [numbers(row) for row in left.rows] == [numbers(row) for row in attended.rows]
    assert (left.unattended == 0) == (name in ATTENDED)
    assert left.skips == attended.skips
    assert_same(tensors(case.model.state_dict()), tensors(other.model.state_dict()))
    assert belongings(case) == belongings(other)


def loop(
    change: Callable[[int, nn.Module, torch.optim.Optimizer], None] | None = None,
    meddle: Callable[[int, nn.Module], None] | None = None,
    **given: Any,
) -> Case:
    """An ordinary loop; ``change`` runs before a step's forward, ``meddle`` before its update."""
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    steps = iter(range(10_000))

    def iterate() -> Tensor:
        step = next(steps)
        if change is not None:
            change(step, model, optimizer)
        optimizer.zero_grad(**given)
        loss = model(torch.randn(8, 6)).square().mean()
        loss.backward()
        if meddle is not None:
            meddle(step, model)
        optimizer.step()
        return loss

    return Case(model, [optimizer], iterate)


def same(build: Callable[[], Case], least: int) -> Leaving:
    """Runs the loop attended and left alone, with the same numbers; ``least`` steps were left."""
    attended, left = run(build(), leave=False), run(build(), leave=True)
    assert [numbers(row) for row in left.rows] == [numbers(row) for row in attended.rows]
    assert left.skips == attended.skips
    assert left.unattended >= least
    return left


def test_clipping_by_the_script_is_seen_in_both_norms() -> None:
    def clip(step: int, model: nn.Module) -> None:
        if step % 2:
            nn.utils.clip_grad_norm_(model.parameters(), 0.001)
        else:  # a way that leaves no trace but the values
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.grad.data.mul_(0.5)

    rows = same(lambda: loop(meddle=clip), 10).rows
    assert all(row.scalars["clipped"] == 1.0 for row in rows)
    halved = rows[-2].scalars
    assert halved["clipped_grad_norm"] == pytest.approx(halved["total_grad_norm"] / 2, rel=1e-5)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_backward_passes_are_counted(set_to_none: bool) -> None:
    def more(step: int, model: nn.Module) -> None:
        for _ in range(step % 3):
            model(torch.randn(8, 6)).mean().backward()

    rows = same(lambda: loop(meddle=more, set_to_none=set_to_none), 10).rows
    assert [row.scalars["backward_passes"] for row in rows] == [1 + s % 3 for s in range(STEPS)]


def test_gradients_thrown_away_are_a_skipped_step() -> None:
    def discard(step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        if step == 8:
            (model(torch.randn(8, 6)).mean() * torch.nan).backward()
            optimizer.zero_grad()

    left = same(lambda: loop(discard), 8)
    assert len(left.skips) == 1


def test_a_pass_that_reaches_no_parameter_is_no_part_of_the_step() -> None:
    def saliency(_step: int, model: nn.Module) -> None:
        x = torch.randn(2, 6, requires_grad=True)
        torch.autograd.grad(model(x).sum(), x)

    same(lambda: loop(meddle=saliency), 10)


@pytest.mark.parametrize("halves", [2, 5])
def test_parts_that_are_frozen_in_turn_keep_their_numbers(halves: int) -> None:
    """In the step, too, in which all gradients that tell of backward passes cease at once."""
    means: list[float] = []
    torch.manual_seed(0)
    parts = [nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(12)]
    model = nn.Sequential(*parts, nn.Linear(6, 3).requires_grad_(False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model.register_forward_hook(lambda _m, _a, output: means.append(output.mean().item()))

    def turn(step: int) -> None:
        for number, part in enumerate(parts):
            part.requires_grad_(number % halves == step // 7 % halves)

    def iterate() -> Tensor:
        loss: Tensor = model(torch.randn(8, 6)).square().mean()
        model.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    listening = run(Case(model, [optimizer], iterate), leave=True, steps=40, before=turn)
    assert listening.unattended > 3 and not listening.late
    for step, row in enumerate(listening.rows):
        found = values(row.modules)
        assert found["activation_mean", "12"] == pytest.approx(means[step], rel=1e-4, abs=1e-7)
        trained = f"{(step // 7) % halves}.0.weight"
        assert ("grad_norm", trained) in values(row.parameters), step


def test_a_backward_pass_that_raises_spoils_one_step_at_most() -> None:
    def fail(step: int, model: nn.Module, _optimizer: torch.optim.Optimizer) -> None:
        if step == 7:
            output = model(torch.randn(8, 6))
            hidden = model[0](torch.randn(8, 6))
            hidden.register_hook(lambda _gradient: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                (output.sum() + model[1:](hidden).sum()).backward()

    for leave in (False, True):
        rows = run(loop(fail), leave=leave, steps=20).rows
        late = [row.step for row in rows if "gradients_late" in row.scalars]
        assert set(late) <= {7}
        assert all(row.scalars["total_grad_norm"] > 0 for row in rows)
        assert [row.step for row in rows] == list(range(20))


def test_parameters_that_come_and_go() -> None:
    def swap(step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        if step == 6:
            state = {name: value.clone() for name, value in model.state_dict().items()}
            model.load_state_dict(state, assign=True)
            optimizer.param_groups[0]["params"] = list(model.parameters())
        if step == 9:
            model[0].weight.requires_grad_(False)

    same(lambda: loop(swap), 3)


def test_a_weight_edited_between_steps_is_measured_as_it_is() -> None:
    def wgan(_step: int, model: nn.Module, _optimizer: torch.optim.Optimizer) -> None:
        for parameter in model.parameters():
            parameter.data.clamp_(-0.01, 0.01)

    rows = same(lambda: loop(wgan), 10).rows
    table = rows[-1].parameters
    assert table is not None
    norm = next(
        float(value)
        for key, value in zip(table.keys, table.values, strict=True)
        if (key.quantity, key.subject) == ("weight_norm", "0.weight")
    )
    assert norm < 0.02 * 60**0.5


@pytest.mark.parametrize("where", ["activation", "gradient", "parameter", "loss"])
def test_what_is_not_finite_is_named_in_its_step(where: str) -> None:
    def spoil(step: int, model: nn.Module, _optimizer: torch.optim.Optimizer) -> None:
        if step == 8 and where == "activation":
            model[2].bias.data[3] = torch.nan
        if step == 8 and where == "loss":
            model[4].bias.data.fill_(3e20)  # its square overflows, and nothing before it

    def poison(step: int, model: nn.Module) -> None:
        if step == 8 and where == "gradient":
            model(torch.randn(2, 6)).square().sum().mul(torch.inf).backward()
        if step == 8 and where == "parameter":
            model[0].weight.grad.data[0, 0] = torch.inf

    rows = same(lambda: loop(spoil, poison), 5).rows
    onset = next(row for row in rows if row.onset is not None)
    assert onset.onset is not None
    assert (onset.step, onset.onset.where) == (8, where)


def test_controls_end_a_stretch() -> None:
    case = loop()
    listening = Leaving()
    observer, _ = observe(case, listening=listening)
    listening.observer = observer
    for step in range(30):
        if step == 8:
            observer.clip, observer.plan.clip_threshold = "norm", 0.001
        if step == 12:
            observer.clip = "off"
        if step == 16:
            observer.zero_grad = False
        if step == 20:
            observer.zero_grad = True
        if step == 24:
            observer.set_every(2)
        iterate(case, observer, listening)
    observer.close()
    rows = listening.rows
    assert listening.unattended >= 6
    assert [row.step for row in rows if row.scalars.get("clipped")] == [8, 9, 10, 11]
    passes = [row.scalars["backward_passes"] for row in rows]
    assert passes[:25] == [1.0] * 16 + [2.0, 3.0, 4.0, 5.0] + [1.0] * 5
    assert [row.step for row in rows if row.full] == [*range(24), 24, 26, 28]


def test_closing_in_the_middle_of_a_backward_pass() -> None:
    case = loop()
    listening = Leaving()
    observer, _ = observe(case, listening=listening)
    listening.observer = observer
    for _ in range(6):
        iterate(case, observer, listening)
    assert observer.clock.pulse.open
    hidden = case.model[0](torch.randn(4, 6))
    hidden.register_hook(lambda _gradient: observer.close())
    case.model[1:](hidden).sum().backward()
    case.iterate()
    assert [row.step for row in listening.rows] == list(range(6))
    assert listening.failures == []


def record(observer: Observer, listening: Leaving, scalars: dict[str, Any]) -> None:
    """As a script records it: the loss and what is beside it."""
    others = {name: value for name, value in scalars.items() if name != "loss"}
    if not observer.clock.pulse.take(scalars.get("loss"), others) and observer.record(scalars):
        listening.on_boundary()


def watched(case: Case, *, leave: bool) -> tuple[Observer, Leaving]:
    listening = Leaving()
    observer, _ = observe(case, listening=listening)
    listening.observer = observer if leave else None
    return observer, listening


def test_outputs_made_again_by_a_checkpoint_are_measured_once() -> None:
    """A forward pass with another batch inside the backward pass tells the two apart."""

    def nest(_step: int, model: nn.Module) -> None:
        def again(_gradient: Tensor) -> None:
            with torch.enable_grad():
                model(torch.randn(3, 6))

        hidden = model[0](torch.randn(8, 6))
        hidden.register_hook(again)
        model[1:](hidden).square().mean().backward()

    same(lambda: loop(meddle=nest), 10)


def test_a_step_without_a_loss_does_not_get_the_next_one() -> None:
    """Losses are recorded after the step, then before it, and once not at all."""
    for leave in (False, True):
        case = loop()
        observer, listening = watched(case, leave=leave)
        numbers = [float(k) for k in range(20)]
        for step in range(20):
            optimizer, model = case.optimizers[0], case.model
            loss = model(torch.randn(8, 6)).square().mean()
            if step > 5 and step != 10:
                record(observer, listening, {"loss": numbers[step]})
            loss.backward()
            optimizer.step()
            if step < 5:
                record(observer, listening, {"loss": numbers[step]})
            optimizer.zero_grad()
        observer.close()
        losses = [row.scalars.get("loss") for row in listening.rows]
        assert losses == [None if k in (5, 10) else number for k, number in enumerate(numbers)]
        assert (listening.unattended > 0) == leave


@pytest.mark.parametrize("act", ["clip", "zero_grad", "set_every", "refresh"])
def test_a_control_between_a_step_and_its_loss(act: str) -> None:
    case = loop()
    observer, listening = watched(case, leave=True)
    for step in range(16):
        case.iterate()
        if step == 8:
            assert observer.clock.pulse.open
            if act == "clip":
                observer.clip = "off"
            elif act == "zero_grad":
                observer.zero_grad = True
            elif act == "set_every":
                observer.set_every(1)
            else:
                observer.refresh()
        record(observer, listening, {"loss": float(step)})
    observer.close()
    assert [row.scalars.get("loss") for row in listening.rows] == [float(k) for k in range(16)]


def test_passes_of_a_loop_that_empties_the_gradients_of_the_model() -> None:
    case = loop()
    model, optimizer = case.model, case.optimizers[0]
    observer, listening = watched(case, leave=True)
    for step in range(12):
        model.zero_grad()
        loss = model(torch.randn(8, 6)).square().mean()
        record(observer, listening, {"loss": loss.detach()})
        loss.backward()
        if step == 9:
            assert observer.clock.pulse.open
            observer.refresh()
        optimizer.step()
    observer.close()
    assert {row.scalars["backward_passes"] for row in listening.rows} == {1.0}


def test_a_skipped_step_at_which_the_steps_are_left_again() -> None:
    """A recorder takes a skipped step for a boundary; its loss is not that of a later step."""

    class Handing(Leaving):
        def on_skipped(self, skipped: Skipped) -> None:
            super().on_skipped(skipped)
            self.on_boundary()

    for leave in (False, True):
        case = loop(set_to_none=False)
        listening = Handing()
        observer, _ = observe(case, listening=listening)
        listening.observer = observer if leave else None
        model, optimizer = case.model, case.optimizers[0]
        for step in range(14):
            if step == 8:
                loss = model(torch.randn(8, 6)).mean() * torch.nan
                record(observer, listening, {"loss": loss.detach()})
                loss.backward()
                optimizer.zero_grad(set_to_none=False)
            loss = model(torch.randn(8, 6)).square().mean()
            record(observer, listening, {"loss": loss.detach()})
            loss.backward()
            if step == 11:
                observer.refresh()
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        observer.close()
        assert len(listening.skips) == 1
        assert {row.scalars["backward_passes"] for row in listening.rows} == {1.0}
        assert all(row.onset is None for row in listening.rows)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_error_of_ours_is_none_of_the_scripts() -> None:
    class Broken(Leaving):
        def on_measured(self, measured: Measured) -> None:
            if measured.step == 6:
                raise OSError("no space left")
            super().on_measured(measured)

    case = loop()
    listening = Broken()
    observer, _ = observe(case, listening=listening)
    for _ in range(10):  # what is held is handed over in the next forward pass
        case.iterate()
    observer.close()
    assert [row.step for row in listening.rows] == [0, 1, 2, 3, 4, 5, 7, 8, 9]


def test_nothing_is_kept_alive_and_memory_does_not_grow() -> None:
    case = loop()
    listening = Leaving()
    observer, _ = observe(case, listening=listening)
    listening.observer = observer
    counts = []
    for step in range(1500):
        iterate(case, observer, listening)
        if step % 500 == 499:
            listening.rows.clear()
            gc.collect()
            counts.append(sum(isinstance(thing, Tensor) for thing in gc.get_objects()))
    assert counts[0] == counts[1] == counts[2]
    references = [weakref.ref(case.model), weakref.ref(case.optimizers[0])]
    del case
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_a_run_has_every_number_in_its_step(tmp_path: Path) -> None:
    """Before the step is recorded, as most scripts do, and with the time machine armed."""
    found = []
    for leave in (False, True):
        torch.manual_seed(0)
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        loss_fn = nn.MSELoss()
        name = "left" if leave else "attended"
        watch = inspector.watch(
            model, optimizer, run_dir=tmp_path, name=name, every=1, loss_fn=loss_fn
        )
        stretches = watch._recorder.observer._stretches
        if not leave:
            stretches._again_at = 10**9
        unattended = 0
        for step in range(90):
            optimizer.zero_grad()
            loss = loss_fn(model(torch.randn(8, 6)), torch.zeros(8, 3))
            watch.record(loss=loss, epoch=step // 10, samples=8)
            loss.backward()
            optimizer.step()
            unattended += stretches.full is not None
        watch.close()
        assert unattended > 30 if leave else not unattended
        with inspector.open_run(tmp_path / name) as recorded:
            names = ("total_grad_norm", "total_update_ratio", "clipped", "nonfinite", "epoch", "lr")
            found.append(
                {
                    (quantity, subject): (list(series.steps), list(series.values))
                    for quantity, subject in [
                        *((name, "") for name in (*names, "loss")),
                        *((q, "2.weight") for q in ("grad_norm", "update_ratio", "weight_norm")),
                        *((q, "3") for q in ("activation_std", "activation_saturated")),
                        ("output_grad_norm", "1"),
                    ]
                    for series in [recorded.series(quantity, subject)]
                }
            )
            assert list(recorded.series("overhead").steps) == list(range(1, 90))
            assert all(share > 0 for share in recorded.series("overhead").values)
    assert found[0] == found[1]
    assert {key: steps for key, (steps, _) in found[0].items() if steps != list(range(90))} == {}


def test_a_held_update_and_a_command_in_a_stretch(tmp_path: Path) -> None:
    """The policy pauses nobody here: ``skip`` withholds the one bad update."""
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loss_fn = nn.MSELoss()
    watch = inspector.watch(model, optimizer, run_dir=tmp_path, name="r", every=1, loss_fn=loss_fn)
    recorder = watch._recorder
    watch.apply(Command(name="set", control="on_nonfinite", value="skip"))
    open_before = False
    for step in range(60):
        x = torch.randn(8, 6)
        if step == 40:
            open_before = recorder.observer._stretches.full is not None
            x[3, 2] = torch.nan
        optimizer.zero_grad()
        loss = loss_fn(model(x), torch.zeros(8, 3))
        watch.record(loss=loss)
        loss.backward()
        optimizer.step()
    watch.close()
    assert open_before
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    with inspector.open_run(tmp_path / "r") as run:
        told = [e.step for e in run.events() if isinstance(e.event, NonFinite)]
        assert told == [40]
        assert not any(isinstance(e.event, StepSkipped) for e in run.events())
        assert list(run.series("loss").steps) == list(range(60))
        ratio = run.series("update_ratio", "0.weight")
        assert list(ratio.steps) == list(range(60))
        assert ratio.values[40] == 0.0
