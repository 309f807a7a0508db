"""Practices that change while a run trains: built in, and in a script of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inspector.commands import Command, Controls
from inspector.config import RunConfig
from inspector.errors import CommandError
from inspector.events import CommandApplied, CommandRefused, NonFinite, Notice, StepSkipped
from inspector.store.reader import Run
from inspector.training.loop import train
from inspector.training.schedules import preview
from inspector.training.task import Task, build_task
from inspector.watching import Watch, watch
from tests.runs import only

State = dict[str, Tensor]


def put(control: str, value: Any) -> Command:
    return Command(name="set", control=control, value=value)


def steered(
    config: RunConfig,
    runs_dir: Path,
    commands: dict[int, list[Command]],
    prepare: Callable[[Task], None] | None = None,
) -> tuple[Run, dict[int, State]]:
    """Trains, with commands before the steps of these numbers; the state before each step."""
    task = build_task(config)
    if prepare is not None:
        prepare(task)
    watched = watch(
        task.model,
        task.optimizer,
        run_dir=runs_dir,
        name="run",
        kind="built_in",
        config=config.to_dict(),
        scaler=task.precision.scaler,
        loss_fn=task.loss_fn,
        controls=config.controls,
        total_steps=task.total_steps,
    )
    states: dict[int, State] = {0: copied(task.model)}
    boundary = watched.boundary

    def commanded() -> None:
        boundary()
        states[watched.step] = copied(task.model)
        for command in commands.pop(watched.step, []):
            watched.apply(command)

    watched.boundary = commanded  # type: ignore[method-assign]
    with watched:
        train(task, watched)
    return Run(watched.run_path), states


def copied(model: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before: State, after: State) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


# ---------------------------------------------------------------- learning rate


def test_a_schedule_is_switched_without_a_jump(tmp_path: Path) -> None:
    controls = Controls(schedule={"name": "cosine"})
    config = RunConfig(steps=40, lr=0.1, controls=controls)
    switch = {10: [put("schedule", {"name": "one_cycle", "max_lr": 0.2})]}
    run, _ = steered(config, tmp_path, switch)
    lr = run.series("lr").values.tolist()
    before = preview({"name": "cosine"}, 0.1, 40, 23)
    assert lr[:11] == pytest.approx(before[:11], rel=1e-6)  # step 10 too: no jump
    (applied,) = only(run, CommandApplied)
    assert applied.effective["total_steps"] == 30
    assert applied.effective["div_factor"] == pytest.approx(0.2 / before[10])
    rate = f"{before[10]:.4g}"
    assert applied.text == f"schedule cosine → one_cycle (from {rate}, with 30 steps left)"
    assert lr[10:] == pytest.approx(preview(applied.effective, before[10], 30, 23), rel=1e-6)
    assert max(lr[10:]) == pytest.approx(0.2, rel=1e-3)
    assert lr[-1] < 1e-4


def test_a_rate_set_by_hand_holds_and_the_schedule_goes_on_from_it(tmp_path: Path) -> None:
    controls = Controls(schedule={"name": "cosine"})
    config = RunConfig(steps=30, lr=0.1, controls=controls)
    run, _ = steered(config, tmp_path, {12: [put("lr", 0.3)]})
    lr, plan = run.series("lr").values.tolist(), preview({"name": "cosine"}, 0.1, 30, 23)
    assert lr[:12] == pytest.approx(plan[:12], rel=1e-6)
    assert lr[12:] == pytest.approx([0.3 * rate / plan[12] for rate in plan[12:]], rel=1e-5)


def test_the_rate_falls_when_the_validation_loss_does_not(tmp_path: Path) -> None:
    schedule = {"name": "reduce_on_plateau", "patience": 1, "factor": 0.5, "threshold": 0.9}
    config = RunConfig(
        epochs=7, batch_size=512, lr=1e-4, controls=Controls(schedule=schedule)
    )  # 3 steps an epoch
    run, _ = steered(config, tmp_path, {})
    lr = run.series("lr").values
    assert (lr / lr[0]).tolist() == pytest.approx([1.0] * 9 + [0.5] * 6 + [0.25] * 6)
    told = [event.message for event in only(run, Notice)]
    assert told[0].startswith("Learning rate 0.0001 → 5e-5: the validation loss has not fallen")


def test_every_group_has_its_rate(tmp_path: Path) -> None:
    groups = [{"modules": ["head"], "lr": 0.01}, {"modules": ["hidden.0"], "lr": 0.02}]
    config = RunConfig(
        steps=8, lr=0.1, param_groups=groups,
        controls=Controls(schedule={"name": "exponential", "gamma": 0.5, "unit": "step"}),
    )  # fmt: skip
    run, _ = steered(config, tmp_path, {4: [put("lr", 0.8)]})
    rest = run.series("lr").values
    assert rest.tolist() == pytest.approx([0.1, 0.05, 0.025, 0.0125, 0.8, 0.4, 0.2, 0.1])
    for number, share in ((1, 0.1), (2, 0.2)):
        assert run.series(f"lr/group {number}").values == pytest.approx(share * rest, rel=1e-5)


# ---------------------------------------------------------------- accumulation, loss scaling


def test_accumulation_changes_at_the_next_step(tmp_path: Path) -> None:
    config = RunConfig(epochs=1, batch_size=100)  # 15 batches: 3 alone, then 6 pairs
    run, states = steered(config, tmp_path, {3: [put("accumulate", 2)]})
    task = build_task(config)
    batches = iter(task.train_loader)
    for count in (1, 1, 1, 2, 2, 2, 2, 2, 2):
        task.optimizer.zero_grad()
        for inputs, targets in islice(batches, count):
            (task.loss_fn(task.model(inputs), targets) / count).backward()  # type: ignore[misc]
        task.optimizer.step()
    assert changed(states[9], task.model.state_dict()) == set()
    assert run.series("loss").steps.tolist() == list(range(9))
    assert run.heartbeat is not None
    assert run.heartbeat.total_steps == 9
    assert run.series("epoch").values[-1] == 1.0


def test_skipped_steps_are_told_and_commands_are_heard_meanwhile(tmp_path: Path) -> None:
    def too_large(task: Task) -> None:
        task.precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)

    config = RunConfig(steps=60, lr=0.05, precision="fp16", controls=Controls(capture_every=1))
    run, states = steered(config, tmp_path, {}, too_large)
    skipped = only(run, StepSkipped)
    scale = run.series("grad_scale").values
    assert len(skipped) == 30 - torch.tensor(scale[-1]).log2().item()
    assert len(scale) == 60 - len(skipped)
    assert {event.reason for event in skipped} == {"GradScaler found non-finite gradients"}
    assert all(torch.isfinite(tensor).all() for tensor in states[len(scale)].values())
    assert run.series("loss").values[-1] < run.series("loss").values[0]


def test_weights_that_are_lost_under_a_scaler_are_told_and_put_back(tmp_path: Path) -> None:
    """The loop itself makes its steps on; what it makes of them is one event each way."""
    for policy in ("continue", "skip"):
        controls = Controls(on_nonfinite=policy)
        config = RunConfig(steps=60, lr=0.01, precision="fp16", controls=controls)
        held: list[Task] = []

        def lose(task: Task, held: list[Task] = held) -> None:
            held.append(task)
            count = [0]

            def spoil(_optimizer: Any, _args: Any, _kwargs: Any) -> None:
                count[0] += 1
                if count[0] == 20:
                    with torch.no_grad():
                        next(iter(task.model.parameters())).fill_(float("nan"))

            task.optimizer.register_step_post_hook(spoil)

        run, _ = steered(config, tmp_path / policy, {}, lose)
        told = {(event.where, event.parameter) for event in only(run, NonFinite)}
        assert told == {("parameter", "hidden.0.0.weight")}
        assert len(only(run, StepSkipped)) < 20
        found = [f.level for f in run.findings() if f.code == "nonfinite"]
        fine = all(p.isfinite().all() for p in held[0].model.parameters())
        assert (found, fine) == ((["note"], True) if policy == "skip" else (["critical"], False))


# ---------------------------------------------------------------- frozen modules


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
def test_frozen_weights_stay_bit_by_bit(optimizer: str, tmp_path: Path) -> None:
    config = RunConfig(optimizer=optimizer, lr=0.01, momentum=0.9, weight_decay=0.1, steps=12)
    run, states = steered(
        config,
        tmp_path,
        {4: [put("frozen", ["hidden.0"])], 8: [put("frozen", [])]},
    )
    first = {"hidden.0.0.weight", "hidden.0.0.bias"}
    assert changed(states[3], states[4]) == set(states[0])
    assert changed(states[4], states[8]) == set(states[0]) - first
    assert changed(states[8], states[9]) == set(states[0])
    applied = only(run, CommandApplied)
    assert [event.text for event in applied] == [
        "frozen none → hidden.0 (2 parameters frozen)",
        "frozen hidden.0 → none (everything is trained)",
    ]  # fmt: skip


def test_a_frozen_module_has_no_gradient_in_the_charts(tmp_path: Path) -> None:
    config = RunConfig(steps=10, controls=Controls(capture_every=1, frozen=("hidden.0",)))
    run, _ = steered(config, tmp_path, {})
    assert len(run.series("grad_norm", "head.weight").values) == 10
    assert len(run.series("grad_norm", "hidden.0.0.weight").values) == 0


# ---------------------------------------------------------------- a script of one's own


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))  # type: ignore[no-any-return]


@pytest.fixture
def script(tmp_path: Path) -> Iterator[tuple[Small, Watch, Callable[[int], None]]]:
    torch.manual_seed(0)
    model = Small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    watched = watch(model, optimizer, run_dir=tmp_path)
    x, y = torch.randn(16, 4), torch.randint(2, (16,))

    def steps(count: int) -> None:
        for _ in range(count):
            model.train()  # as scripts do after validation
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            watched.record(loss=loss)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    yield model, watched, steps
    watched.close()


def test_a_script_is_frozen_and_given_back(script: Any) -> None:
    model, watched, steps = script
    steps(3)
    watched.apply(put("frozen", ["body"]))
    before = copied(model)
    steps(60)
    moving = {"body.1.running_mean", "body.1.running_var", "body.1.num_batches_tracked"}
    assert changed(before, copied(model)) == {"head.weight", "head.bias"} | moving
    watched.close()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_modules_of_a_script_are_held_in_eval_mode(script: Any) -> None:
    model, watched, steps = script
    steps(2)
    watched.apply(put("eval_modules", ["BatchNorm1d", "body.3"]))
    before = copied(model)
    seen: list[bool] = []
    model.body[3].register_forward_hook(lambda m, *_: seen.append(m.training))
    steps(5)
    assert seen == [False] * 5
    assert not any("running" in name for name in changed(before, copied(model)))
    assert model.training and model.head.training
    watched.apply(put("eval_modules", []))
    assert model.body[1].training
    steps(1)
    assert seen[-1]
    assert "body.1.running_mean" in changed(before, copied(model))


def test_what_a_script_does_by_itself_is_refused(script: Any, tmp_path: Path) -> None:
    model, watched, _ = script
    for command in (
        put("accumulate", 4),
        put("schedule", {"name": "cosine"}),
        put("frozen", ["tail"]),
        put("frozen", ["body", "head"]),
        put("frozen", ["body.2"]),
        put("eval_modules", ["LayerNorm"]),
    ):
        watched.apply(command)
    watched.close()
    reasons = [event.reason for event in only(Run(watched.run_path), CommandRefused)]
    assert reasons == [
        "How many backward passes make a step is written in the script's own loop.",
        "The script's own loop decides how the learning rate goes on; set lr instead.",
        "There is no module 'tail'; at its top the model has body, head.",
        "Freezing body, head would leave nothing to train; leave a module out.",
        "Module 'body.2' has no parameters; name one that has.",
        "There is no module 'LayerNorm'; at its top the model has body, head. Nor has it a module "
        "of type 'LayerNorm'; its types are BatchNorm1d, Dropout, Linear, ReLU, Sequential, Small.",
    ]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(CommandError, match="is written in the script's own loop"):
        watch(model, optimizer, run_dir=tmp_path / "x", controls=Controls(accumulate=2))
    assert not (tmp_path / "x").exists()


def test_the_remedy_releases_what_the_control_holds(script: Any) -> None:
    model, watched, steps = script
    steps(2)
    watched.apply(put("frozen", ["body"]))
    remedy = Command(name="remedy", value={"action": "unfreeze", "module": "body.0"})
    watched._recorder._interventions.apply(remedy)
    assert watched.controls.frozen == ()
    assert model.body[0].weight.requires_grad
    before = copied(model)
    steps(1)
    assert "body.0.weight" in changed(before, copied(model))
