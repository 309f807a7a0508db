"""The advice is for what is wrong with this script, not for its code in general."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from labelled_programs import all_programs
from scoring import seed_of, trained
from torch import Tensor, nn

import inspector
from inspector.diagnosis import Finding
from inspector.diagnosis.findings import ranked
from inspector.diagnosis.place import place
from inspector.events import NonFinite, RunFinished
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from inspector.views.findings import cards

torch.set_num_threads(1)
Loss = Callable[[Tensor, Tensor], Tensor]


def script(
    folder: Path, model: nn.Module, loss_fn: Loss, inputs: Tensor, targets: Tensor,
    *, lr: float = 0.05, steps: int = 60, gamma: float = 1.0,
) -> list[Finding]:  # fmt: skip
    """What is found in a script that records the loss after the backward pass."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)
    with inspector.watch(model, optimizer, run_dir=folder, every=1) as watch:
        for _ in range(steps):
            chosen = torch.randint(len(inputs), (32,))
            optimizer.zero_grad()
            loss = loss_fn(model(inputs[chosen]), targets[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            watch.record(loss=loss)
            optimizer.step()
            schedule.step()
    with inspector.open_run(watch.run_path) as run:
        return run.findings()


def labelled(name: str, folder: Path) -> list[Finding]:
    program = next(one for one in all_programs() if one.name == name)
    path, _ = trained(program, seed_of(program, 61), True, folder)
    with inspector.open_run(path) as run:
        return run.findings()


def of(findings: list[Finding], code: str) -> Finding:
    return next(finding for finding in findings if finding.code == code)


def test_an_explosion_that_the_learning_rate_made_is_told_as_that(tmp_path: Path) -> None:
    """As recorded from a regression with a hundred times the right rate: NaN at the fifth step."""
    path = create_run(tmp_path, "run", {"kind": "watched"})
    keys = tuple(map(SeriesKey, ("loss", "lr", "total_grad_norm", "total_update_ratio")))
    loss, norms = [27.0, 18.0, 4.7e5, 7e22], [3.5, 20.0, 2e5, 1e20]
    with closing(Writer(path)) as writer:
        for step, (value, norm, ratio) in enumerate(
            zip(loss, norms, [0.52, 2.7, 9.2e3, 5.7e14], strict=True)
        ):
            writer.append("scalar", step, keys, np.array([value, 1.0, norm, ratio], np.float32))
        for step in range(4, 100):
            writer.append("scalar", step, keys[:2], np.array([np.nan, 1.0], np.float32))
        writer.event(
            4,
            NonFinite(
                where="activation",
                module="4",
                module_type="Linear",
                op="addmm",
                file="/env/lib/site-packages/torch/nn/modules/linear.py",
                line=9,
            ),
        )
        writer.event(100, RunFinished())
        writer.heartbeat(100, "finished")
    with inspector.open_run(path) as run:
        first, *others = run.findings()
    assert first.code == "lr_too_high"
    assert {"exploding_gradient", "nonfinite"} <= set(first.consequences)
    assert 1e-4 < first.remedies[0].value < 0.1  # 0.01 trains it; not 1 / the ratio of the wreck
    assert len(first.title) < 120
    exploding = of(others, "exploding_gradient")
    assert "from step 2 on" in exploding.title
    assert not any("recurrent" in remedy.text for remedy in exploding.remedies)
    assert "torch/nn/modules/linear.py:9" in place(of(others, "nonfinite"))


def test_a_loss_of_certain_probabilities_is_not_put_down_to_a_root(tmp_path: Path) -> None:
    def own(p: Tensor, t: Tensor) -> Tensor:
        return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()

    torch.manual_seed(0)
    inputs = 4 * torch.randn(500, 10)
    targets = (inputs[:, :1] > 0).float()
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())
    finding = of(script(tmp_path, model, own, inputs, targets, lr=0.5, steps=120), "nonfinite")
    assert finding.step > 0
    assert "pass through a sigmoid" in finding.explanation
    assert "binary_cross_entropy_with_logits" in finding.remedies[0].code
    assert not any("sqrt" in remedy.code for remedy in finding.remedies)


@pytest.mark.parametrize(
    ("name", "code", "advice"),
    [
        ("column_against_row", "label_mismatch", "squeeze(-1)"),
        ("targets_out_of_reach", "label_mismatch", "y.std()"),
        ("cleared_before_the_step", "frozen_parameters", "zero_grad(); loss.backward(); opt"),
        ("summed_over_the_batch", "lr_too_high", 'reduction="mean"'),
        ("clipped_to_a_thousandth", "lr_too_low", "clip_grad_norm_(model.parameters(),"),
        ("log_likelihood_without_its_minus", "wrong_loss", "-log_probabilities"),
        ("one_image_at_a_time", "small_batch", "GroupNorm"),
    ],
)
def test_the_first_remedy_is_for_that_very_mistake(
    name: str, code: str, advice: str, tmp_path: Path
) -> None:
    finding = of(labelled(name, tmp_path), code)
    assert advice in finding.remedies[0].code, finding.remedies


def test_a_schedule_that_ran_out_is_not_answered_with_an_even_smaller_rate(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs, labels = torch.randn(200, 8), torch.randint(5, (200,))
    found = script(tmp_path, nn.Linear(8, 5), F.cross_entropy, inputs, labels, gamma=0.7, steps=90)
    (card,) = cards([of(found, "lr_too_low")])
    assert card.heading == "Learning rate ran out"
    assert card.verdict.startswith("The learning rate fell from 0.05 to ")
    assert card.controls[0].value == 0.05
    assert "scheduler.step()" in card.advice[0].code


def test_binary_cross_entropy_is_not_answered_with_cross_entropy(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(200, 8)
    targets = (inputs[:, :1] > 0).float()
    model = nn.Sequential(nn.Linear(8, 1), nn.Sigmoid())
    loss_fn = F.binary_cross_entropy_with_logits
    finding = of(script(tmp_path, model, loss_fn, inputs, targets), "double_softmax")
    assert "F.binary_cross_entropy_with_logits(" in finding.remedies[0].code
    assert "log_softmax" not in finding.explanation


def test_what_only_says_that_nothing_is_learned_follows_from_the_cause_at_the_root() -> None:
    def finding(code: str, level: str, **more: bool | str) -> Finding:
        return Finding(code=code, level=level, title=code, confidence=0.9, **more)  # type: ignore[arg-type]

    stuck = finding("label_mismatch", "note", symptom=True, heading="No better than guessing")
    tanh = finding("saturated_activation", "warning")
    found = ranked([stuck, tanh, finding("unnormalized_input", "warning")])
    assert [one.consequence_of for one in found] == [
        None,
        "unnormalized_input",
        "unnormalized_input",
    ]
    assert "label_mismatch" not in found[0].consequences  # nobody doubts the labels
    assert cards(found)[-1].heading == "No better than guessing"
    assert ranked([stuck])[0].consequence_of is None


def test_a_loss_that_falls_slowly_is_not_said_to_stay(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2000, 20)
    labels = (inputs @ torch.randn(20, 5)).argmax(1)
    found = script(tmp_path, nn.Linear(20, 5), F.cross_entropy, inputs, labels, lr=0.01, steps=100)
    with inspector.open_run(next(tmp_path.iterdir())) as run:
        losses = run.series("loss").values
    assert 0.8 < losses[-12:].mean() / torch.tensor(5.0).log() < 1.1  # the old limits
    assert not [one for one in found if one.symptom]


def test_the_limit_beside_a_note_is_the_one_it_passed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs, labels = 7 * torch.randn(200, 8), torch.randint(3, (200,))
    found = script(tmp_path, nn.Linear(8, 3), F.cross_entropy, inputs, labels)
    (evidence,) = of(found, "unnormalized_input").evidence
    assert evidence.value is not None and evidence.threshold is not None
    assert evidence.value > evidence.threshold


def test_units_that_died_of_a_raised_rate_are_put_down_to_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = torch.rand(1000, 64)
    labels = (inputs @ torch.randn(64, 10)).argmax(1)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with inspector.watch(model, optimizer, run_dir=tmp_path) as watch:
        for step in range(300):
            if step == 100:
                optimizer.param_groups[0]["lr"] = 30.0
            chosen = torch.randint(1000, (64,))
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs[chosen]), labels[chosen])
            watch.record(loss=loss)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with inspector.open_run(watch.run_path) as run:
        first, *others = run.findings()
    assert (first.code, first.step) == ("lr_too_high", 100)
    assert of(others, "dead_relu").consequence_of == "lr_too_high"
    assert first.remedies[0].value == 0.05


def test_thrown_weights_that_hardly_move_are_not_told_to_move_faster(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = torch.rand(1000, 64)
    labels = (inputs @ torch.randn(64, 10)).argmax(1)
    layers = nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    model = nn.Sequential(*layers)
    first, *others = script(tmp_path, model, F.cross_entropy, inputs, labels, lr=30.0, steps=200)
    assert first.code == "lr_too_high"
    assert "lr_too_low" not in {finding.code for finding in others}


@pytest.mark.parametrize(("scale", "code"), [(1.0, "lr_too_high"), (40.0, "poor_initialization")])
def test_a_first_loss_of_a_whole_batch_is_a_sum_unless_weights_made_it(
    scale: float, code: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    inputs = torch.rand(500, 16)
    labels = (inputs @ torch.randn(16, 10)).argmax(1)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10))
    for module in (model[0], model[2]):
        with torch.no_grad():
            module.weight.mul_(scale**0.5 if scale > 1 else 1)  # type: ignore[operator, union-attr]

    def own(scores: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(scores, targets, reduction="sum" if scale == 1 else "mean")

    found = script(tmp_path, model, own, inputs, labels, lr=5.0 if scale == 1 else 0.01)
    texts = " ".join(remedy.text for one in found for remedy in one.remedies)
    assert code in [one.code for one in found]
    assert ("the sum over 32 samples" in texts) == (scale == 1)
