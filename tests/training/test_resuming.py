"""A run that goes on from a checkpoint does, bit for bit, what the run itself did."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from same import differences, files, last, recorded

from inspector.commands import Controls
from inspector.config import RunConfig
from inspector.errors import ConfigError
from inspector.events import CheckpointFailed, CheckpointSaved, RunContinued
from inspector.store.reader import Run
from inspector.training import checkpoints, runner
from tests.runs import train

BASE = RunConfig(steps=40, batch_size=100, torch_threads=1)  # 15 batches an epoch


def resumed(runs_dir: Path, reference: str, **changes: Any) -> Run:
    state = checkpoints.read(checkpoints.locate(reference, runs_dir))
    config = RunConfig.from_dict({**state["config"], "resume": reference, **changes})
    return train(config, runs_dir, f"{reference.replace('@', '-')}-on")


def assert_goes_on(whole: Run, rest: Run, step: int) -> None:
    assert rest.status == "finished", [stored.event.text for stored in rest.events()]
    assert list(differences(last(whole), last(rest))) == []
    for name in ("loss", "lr"):
        then = {at: value for at, value in recorded(whole, name).items() if at >= step}
        assert recorded(rest, name) == then
    again = recorded(rest, "val_loss")
    then = recorded(whole, "val_loss")
    assert again == {at: then[at] for at in again}


CASES: dict[str, tuple[dict[str, Any], int]] = {
    "plain, in the middle of an epoch": ({}, 22),
    "before validation at the end of an epoch": ({}, 15),
    "first step": ({}, 1),
    "momentum": ({"momentum": 0.9, "weight_decay": 1e-3}, 13),
    "adam and one cycle": (
        {"optimizer": "adam", "lr": 1e-3, "controls": Controls(schedule={"name": "one_cycle"})},
        17,
    ),
    "adamw and warm-up": (
        {
            "optimizer": "adamw",
            "lr": 1e-3,
            "controls": Controls(schedule={"name": "warmup_cosine"}),
        },
        3,
    ),
    "rmsprop and steps by epoch": (
        {
            "optimizer": "rmsprop",
            "lr": 1e-3,
            "controls": Controls(schedule={"name": "step", "unit": "epoch", "step_size": 1}),
        },
        30,
    ),
    "adagrad and plateau": (
        {
            "optimizer": "adagrad",
            "lr": 3.0,
            "controls": Controls(schedule={"name": "reduce_on_plateau", "patience": 0}),
        },
        31,
    ),
    "batch norm": ({"model": "resnet", "steps": 6, "batch_size": 400}, 2),
    "dropout": ({"model": "transformer", "data": "digit_rows", "steps": 8, "lr": 0.01}, 5),
    "accumulation": ({"controls": Controls(accumulate=4)}, 10),
    "gradients that pile up": ({"lr": 1e-4, "controls": Controls(zero_grad=False)}, 11),
    "classes drawn equally often": ({"balance": True, "normalize": True, "stratify": True}, 19),
    "half precision with loss scaling": ({"precision": "fp16", "lr": 0.01}, 12),
    "augmentation": (
        {"augment": [{"name": "RandomRotation", "degrees": 20}], "steps": 20, "batch_size": 200},
        9,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_steps_before_and_after_make_the_whole(case: str, tmp_path: Path) -> None:
    settings_, step = CASES[case]
    whole = train(
        dataclasses.replace(BASE, **{**settings_, "checkpoint_every": step}), tmp_path, "whole"
    )
    rest = resumed(tmp_path, f"whole@{step}")
    assert_goes_on(whole, rest, step)
    assert rest.meta["lineage"] == {
        "parent": "whole",
        "step": step,
        "checkpoint": f"whole/blobs/checkpoints/step-{step:06d}.pt",
        "kind": "resume",
        "changes": {},
    }


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    step=st.integers(1, 29),
    optimizer=st.sampled_from(("sgd", "adam", "rmsprop")),
    schedule=st.sampled_from((None, "cosine", "exponential", "multi_step")),
    accumulate=st.integers(1, 3),
    batch_size=st.integers(90, 300),
)
def test_any_step_of_any_run_can_be_taken_up(
    step: int,
    optimizer: str,
    schedule: str | None,
    accumulate: int,
    batch_size: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    runs_dir = tmp_path_factory.mktemp("runs")
    controls = Controls(
        schedule=None if schedule is None else {"name": schedule}, accumulate=accumulate
    )
    config = dataclasses.replace(
        BASE, steps=30, optimizer=optimizer, lr=0.003, batch_size=batch_size, controls=controls,
        checkpoint_every=step,
    )  # fmt: skip
    whole = train(config, runs_dir, "whole")
    assert_goes_on(whole, resumed(runs_dir, f"whole@{step}"), step)


def test_workers_go_on_with_their_random_numbers(tmp_path: Path) -> None:
    source = tmp_path / "noise.py"
    source.write_text(
        "import torch\n"
        "class Noisy(torch.utils.data.Dataset):\n"
        "    def __len__(self):\n"
        "        return 60\n"
        "    def __getitem__(self, row):\n"
        "        return torch.rand(4) + row / 60, torch.tensor(row % 2)\n"
    )
    config = RunConfig(
        model="mlp", data=f"file:{source}:Noisy", batch_size=8, steps=14, workers=2,
        torch_threads=1, checkpoint_every=9, validation=0.0,
    )  # fmt: skip
    runs_dir = tmp_path / "runs"
    for name, reference in (("whole", ""), ("rest", "whole@9")):
        task = runner.prepare(dataclasses.replace(config, resume=reference), runs_dir, name)
        assert not isinstance(task, str)
        assert task.train_loader.num_workers == 2
        runner.train_and_record(task, runs_dir, name, lambda _: None)
    assert_goes_on(Run(runs_dir / "whole"), Run(runs_dir / "rest"), 9)


def test_a_run_can_be_prolonged_beyond_its_end(tmp_path: Path) -> None:
    whole = train(BASE, tmp_path, "whole")
    train(dataclasses.replace(BASE, steps=22), tmp_path, "short")
    assert_goes_on(whole, resumed(tmp_path, "short@last", steps=40), 22)


def test_early_stopping_counts_on(tmp_path: Path) -> None:
    config = dataclasses.replace(
        BASE, steps=150, lr=3.0, early_stopping=3, checkpoint_every=32
    )  # every validation after the first is worse
    whole = train(config, tmp_path, "whole")
    rest = resumed(tmp_path, "whole@32")
    assert rest.heartbeat is not None and whole.heartbeat is not None
    assert rest.heartbeat.step == whole.heartbeat.step < 150


def test_controls_set_by_hand_are_in_force_again(tmp_path: Path) -> None:
    config = dataclasses.replace(BASE, controls=Controls(clip="norm", clip_threshold=0.01))
    whole = train(dataclasses.replace(config, checkpoint_every=20), tmp_path, "whole")
    assert_goes_on(whole, resumed(tmp_path, "whole@20"), 20)


def test_last_best_and_every_so_many_steps_are_kept(tmp_path: Path) -> None:
    run = train(dataclasses.replace(BASE, steps=45, lr=0.5, checkpoint_every=20), tmp_path, "kept")
    assert files(run) == ["best.pt", "last.pt", "step-000020.pt", "step-000040.pt"]
    losses = recorded(run, "val_loss")
    best = torch.load(run.path / "blobs/checkpoints/best.pt", weights_only=True)
    assert best["step"] == min(losses, key=losses.__getitem__) + 1
    assert best["best"]["val_loss"] == pytest.approx(min(losses.values()))
    saved = [s.event for s in run.events() if isinstance(s.event, CheckpointSaved)]
    assert {event.path: event.at for event in saved} == {
        "blobs/checkpoints/step-000020.pt": 20,
        "blobs/checkpoints/step-000040.pt": 40,
        "blobs/checkpoints/best.pt": best["step"],
        "blobs/checkpoints/last.pt": 45,
    }
    assert torch.equal(
        torch.load(run.path / "blobs/last.pt", weights_only=True)["model"]["head.weight"],
        last(run)["model"]["head.weight"],
    )


def test_a_full_disk_is_said_once_and_training_goes_on(tmp_path: Path) -> None:
    full = tmp_path / "full" / "blobs" / "checkpoints"
    full.mkdir(parents=True)
    for name in ("last.pt", "best.pt", *(f"step-{step:06d}.pt" for step in range(10, 41, 10))):
        (full / f"{name}.part").symlink_to("/dev/full")
    full.rename(tmp_path / "folder")

    def started(watch: Any) -> None:
        (tmp_path / "folder").rename(watch.run_path / "blobs" / "checkpoints")

    task = runner.prepare(dataclasses.replace(BASE, checkpoint_every=10), tmp_path, "x")
    assert not isinstance(task, str)
    runner.train_and_record(task, tmp_path, "run", started)
    run = Run(tmp_path / "run")
    assert run.status == "finished"
    assert len(recorded(run)) == 40
    failed = [s.event for s in run.events() if isinstance(s.event, CheckpointFailed)]
    assert [event.text for event in failed] == [
        "Checkpoint blobs/checkpoints/step-000010.pt could not be written: No space left on "
        "device; training goes on."
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "deep_sigmoid"}, "another training: model is 'mlp' there and 'deep_sigmoid'"),
        ({"seed": 1}, "another training: seed is 0 there and 1 here"),
        ({"batch_size": 50}, "another training: batch_size is 100 there"),
        ({"data": "two_moons"}, "another training: data is 'digits' there"),
        ({"resume": "whole@7"}, r"no checkpoint '7'; it has last \(40\), best \(40\)"),
        ({"resume": "other@7"}, "Expected the path of a checkpoint, or RUN@STEP"),
        ({}, "has done all of its 40 steps already"),
    ],
)
def test_what_cannot_go_on_is_refused_and_creates_nothing(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    train(BASE, tmp_path, "whole")
    with pytest.raises(ConfigError, match=message):
        runner.start(dataclasses.replace(BASE, **{"resume": "whole@last", **changes}), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_an_edited_model_is_refused_or_said(tmp_path: Path) -> None:
    source = tmp_path / "net.py"
    text = (
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, WIDTH), nn.ReLU(), "
        "nn.Linear(WIDTH, 10))\n"
    )
    source.write_text(text.replace("WIDTH", "20"))
    config = dataclasses.replace(BASE, model=f"file:{source}:Net", checkpoint_every=20)
    train(config, tmp_path / "runs", "whole")
    source.write_text(text.replace("WIDTH", "20") + "# a remark\n")
    rest = resumed(tmp_path / "runs", "whole@20")
    (told,) = [s.event for s in rest.events() if isinstance(s.event, RunContinued)]
    assert told.notes == ["Edited since the checkpoint: net.py."]
    source.write_text(text.replace("WIDTH", "30"))
    with pytest.raises(ConfigError, match=r"1.weight has shape \(20, 64\) there and \(30, 64\)"):
        resumed(tmp_path / "runs", "whole@20")


def test_weights_that_are_not_finite_do_not_replace_good_ones(tmp_path: Path) -> None:
    config = dataclasses.replace(BASE, steps=60, lr=1e30, checkpoint_every=0)
    task = runner.prepare(config, tmp_path, "x")
    assert not isinstance(task, str)
    good: list[Any] = []

    def started(watch: Any) -> None:
        folder = watch.run_path / "blobs" / "checkpoints"
        folder.mkdir()
        (folder / "last.pt").write_bytes(b"good")
        good.append(folder / "last.pt")

    runner.train_and_record(task, tmp_path, "run", started)
    assert good[0].read_bytes() == b"good"
    assert any("not finite at step 60" in s.event.text for s in Run(tmp_path / "run").events())


def test_after_an_error_the_state_before_the_step_is_kept(
    tmp_path: Path, user_model: Callable[[str], Path]
) -> None:
    user_model("""
class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.drop, self.calls = nn.Linear(64, 10), nn.Dropout(0.2), 0
    def forward(self, x):
        self.calls += 1
        if self.calls == LIMIT:
            self.drop(x)
            raise LookupError("no such token")
        return self.head(self.drop(x.flatten(1)))
LIMIT = 0
""")
    import sys

    module = sys.modules["sample_models.mine"]
    config = dataclasses.replace(BASE, model="mine", validation=0.0)
    whole = train(config, tmp_path / "runs", "whole")
    module.LIMIT = 25  # type: ignore[attr-defined]
    failed = train(config, tmp_path / "runs", "failed")
    assert failed.status == "failed"
    step = last(failed)["step"]
    assert 20 < step < 25
    module.LIMIT = 2  # type: ignore[attr-defined]
    at_once = train(config, tmp_path / "runs", "at_once")
    assert (at_once.status, files(at_once)) == ("failed", [])  # nothing to go on from
    module.LIMIT = 0  # type: ignore[attr-defined]
    assert_goes_on(whole, resumed(tmp_path / "runs", "failed@last"), step)


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, wait_for: Callable[..., Run]) -> None:
    config = dataclasses.replace(BASE, controls=Controls(max_steps_per_s=60.0))
    whole = train(config, tmp_path, "whole")
    runner.start(config, tmp_path, "stopped")
    runner.stop()
    assert runner.join(60)
    stopped = wait_for(tmp_path / "stopped", "stopped")
    step = last(stopped)["step"]
    assert 0 < step < 40
    assert_goes_on(whole, resumed(tmp_path, "stopped@last"), step)
