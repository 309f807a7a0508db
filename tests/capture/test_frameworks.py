"""What frameworks do around an optimizer, without them: closures, wrappers, signatures."""

from __future__ import annotations

import inspect
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer

import inspector
from inspector.commands import Command, Controls
from inspector.errors import InspectorError
from inspector.events import NonFinite, Notice, Origin
from inspector.store.reader import Run

LIMIT = 0.05


def small() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def batch(step: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(100 + step)
    return torch.randn(16, 6), torch.randint(3, (16,))


def total(model: nn.Module) -> float:
    return math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters()))  # type: ignore[union-attr]


class Sharpness(Optimizer):
    """Steps from gradients at a point uphill, as SAM does: weights change before its closure."""

    def __init__(self, parameters: Any, lr: float = 0.1) -> None:
        super().__init__(parameters, {"lr": lr})

    def step(self, closure: Callable[[], Any]) -> None:  # type: ignore[override]
        parameters = self.param_groups[0]["params"]
        kept = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p in parameters:
                p.add_(p.grad, alpha=0.05)
        with torch.enable_grad():
            closure()
        with torch.no_grad():
            for p, before in zip(parameters, kept, strict=True):
                p.copy_(before).sub_(p.grad, alpha=self.param_groups[0]["lr"])


def lightning_like(
    model: nn.Module, optimizer: Optimizer, steps: int, found: dict[str, list[float]], record: Any
) -> None:
    """Forward, ``zero_grad()``, backward and clipping are all inside the closure."""
    for step in range(steps):

        def closure(step: int = step) -> Tensor:
            inputs, targets = batch(step)
            loss = F.cross_entropy(model(inputs), targets)
            record(loss)
            optimizer.zero_grad()
            loss.backward()
            found["total_grad_norm"].append(total(model))
            nn.utils.clip_grad_norm_(model.parameters(), LIMIT)
            found["clipped_grad_norm"].append(total(model))
            return loss

        optimizer.step(closure=closure) if step % 2 else optimizer.step(closure)


def values_of(run: Run, name: str) -> list[float]:
    return [float(value) for value in run.series(name).values]


@pytest.mark.parametrize("every", [0, 1])
def test_a_closure_that_clips_is_seen_before_and_after_it(tmp_path: Path, every: int) -> None:
    found: dict[str, list[float]] = {"total_grad_norm": [], "clipped_grad_norm": []}
    model = small()
    optimizer = AdamW(model.parameters(), lr=0.01)
    with inspector.watch(model, optimizer, run_dir=tmp_path, every=every) as watch:
        lightning_like(model, optimizer, 30, found, lambda loss: watch.record(loss=loss))
    twin = small()
    other: dict[str, list[float]] = {"total_grad_norm": [], "clipped_grad_norm": []}
    lightning_like(twin, AdamW(twin.parameters(), lr=0.01), 30, other, lambda _loss: None)
    assert all(map(torch.equal, model.parameters(), twin.parameters()))
    with inspector.open_run(watch.run_path) as run:
        for name, expected in other.items():
            series = run.series(name)
            assert len(series.steps) == 30 if every else len(series.steps) >= 3
            for step, value in zip(series.steps, series.values, strict=True):
                assert math.isclose(value, expected[step], rel_tol=1e-4), (name, step)
        assert min(values_of(run, "total_grad_norm")) > LIMIT
        assert set(values_of(run, "clipped")) == {1.0}


def test_each_evaluation_of_a_closure_may_clip(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.01, max_iter=4)
    inputs, targets = batch(0)
    before: list[float] = []
    with inspector.watch(model, optimizer, run_dir=tmp_path, every=1) as watch:
        for _ in range(5):

            def closure() -> Tensor:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(inputs), targets)
                loss.backward()
                before.append(total(model))
                nn.utils.clip_grad_norm_(model.parameters(), LIMIT)
                return loss

            watch.record(loss=optimizer.step(closure))
    with inspector.open_run(watch.run_path) as run:
        assert len(before) > 5
        assert values_of(run, "total_grad_norm")[-1] == pytest.approx(before[-1], rel=1e-4)
        assert values_of(run, "clipped_grad_norm") == pytest.approx([LIMIT] * 5, rel=1e-4)


def test_a_bad_update_in_a_closure_is_held_and_its_origin_is_named(tmp_path: Path) -> None:
    model = small()
    optimizer = SGD(model.parameters(), lr=0.1)
    controls = Controls(on_nonfinite="skip")
    with inspector.watch(model, optimizer, run_dir=tmp_path, controls=controls) as watch:
        for step in range(6):
            inputs, targets = batch(step)
            if step == 3:
                inputs[0, 0] = math.inf

            def closure(inputs: Tensor = inputs, targets: Tensor = targets) -> Tensor:
                loss = F.cross_entropy(model(inputs), targets)
                watch.record(loss=loss)
                optimizer.zero_grad()
                loss.backward()
                return loss

            optimizer.step(closure)
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    with inspector.open_run(watch.run_path) as run:
        events = [stored for stored in run.events() if isinstance(stored.event, NonFinite | Origin)]
        assert [stored.step for stored in events] == [3, 3]
        origin = next(e.event for e in events if isinstance(e.event, Origin))
        assert origin.held and (origin.phase, origin.module) == ("data", None)


def test_an_optimizer_that_moves_weights_before_its_closure_has_right_updates(
    tmp_path: Path,
) -> None:
    model = small()
    optimizer = Sharpness(model.parameters())
    expected = []
    with inspector.watch(model, optimizer, run_dir=tmp_path, every=1) as watch:
        for step in range(8):
            inputs, targets = batch(step)

            def closure(inputs: Tensor = inputs, targets: Tensor = targets) -> Tensor:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(inputs), targets)
                loss.backward()
                return loss

            watch.record(loss=closure())
            before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
            optimizer.step(closure)
            after = nn.utils.parameters_to_vector(model.parameters()).detach()
            expected.append(float((after - before).norm() / before.norm()))
    with inspector.open_run(watch.run_path) as run:
        series = run.series("total_update_ratio")
        assert list(series.steps) == list(range(1, 8))  # noticed in the first step, which has none
        for step, value in zip(series.steps, series.values, strict=True):
            assert math.isclose(value, expected[step], rel_tol=1e-3)


class AcceleratedLike(Optimizer):
    """A wrapper that is an optimizer by name, never initialized, and looks at signatures."""

    def __init__(self, optimizer: Optimizer, scaler: Any = None) -> None:
        self.optimizer = optimizer
        self.scaler = scaler

    @property
    def param_groups(self) -> Any:
        return self.optimizer.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        assert "set_to_none" in inspect.signature(self.optimizer.zero_grad).parameters
        self.optimizer.zero_grad(set_to_none=set_to_none)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.optimizer.step(closure)


class LightningLike:
    """A wrapper that takes the class of what it wraps, and only hands ``step()`` on."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self.__class__ = type("LightningSGD", (LightningLike, type(optimizer)), {})

    def step(self, closure: Any = None) -> None:
        self._optimizer.step(closure=closure or (lambda: None))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)


@pytest.mark.parametrize("wrap", [AcceleratedLike, LightningLike])
def test_a_wrapped_optimizer_is_watched_steered_and_left_alone(
    tmp_path: Path, wrap: Callable[[Optimizer], Any]
) -> None:
    def train(watched: bool) -> tuple[nn.Module, Optimizer, Any, Path]:
        model = small()
        inner = SGD(model.parameters(), lr=0.1, momentum=0.9)
        wrapper = wrap(inner)
        watch = inspector.watch(model, wrapper, run_dir=tmp_path, every=1) if watched else None
        scheduler = torch.optim.lr_scheduler.StepLR(wrapper, 4, 0.5)
        for step in range(10):
            if watch is not None and step == 6:
                watch.apply(Command(name="set", control="zero_grad", value=False))
            inputs, targets = batch(step)
            loss = F.cross_entropy(model(inputs), targets)
            if not watched and step >= 6:
                pass
            else:
                wrapper.zero_grad()
            loss.backward()
            wrapper.step()
            scheduler.step()
        if watch is not None:
            watch.close()
        return model, inner, wrapper, watch.run_path if watch else tmp_path

    model, inner, wrapper, path = train(watched=True)
    twin, inner_twin, wrapper_twin, _ = train(watched=False)
    assert all(map(torch.equal, model.parameters(), twin.parameters()))
    assert vars(inner).keys() == vars(inner_twin).keys()
    assert vars(wrapper).keys() == vars(wrapper_twin).keys()
    assert not inner._optimizer_step_pre_hooks and not inner._optimizer_step_post_hooks
    with inspector.open_run(path) as run:
        assert values_of(run, "lr") == pytest.approx([0.1] * 4 + [0.05] * 4 + [0.025] * 2)
        assert values_of(run, "backward_passes") == [1.0] * 6 + [2.0, 3.0, 4.0, 5.0]


def test_a_rate_is_built_into_a_scheduler_of_the_wrapper(tmp_path: Path) -> None:
    model = small()
    wrapper: Any = LightningLike(SGD(model.parameters(), lr=0.1))
    scheduler = torch.optim.lr_scheduler.LambdaLR(wrapper, lambda step: 1 - step / 10)
    with inspector.watch(model, wrapper, run_dir=tmp_path) as watch:
        watch.apply(Command(name="set", control="lr", value=0.5))
        wrapper.step()
        scheduler.step()
    assert wrapper.param_groups[0]["lr"] == pytest.approx(0.45)


def test_a_scaler_of_the_wrapper_is_known_from_the_first_step(tmp_path: Path) -> None:
    model = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    wrapper = AcceleratedLike(SGD(model.parameters(), lr=0.1), scaler)
    inputs, targets = batch(0)
    with inspector.watch(model, wrapper, run_dir=tmp_path, every=1) as watch:
        scaler.scale(F.cross_entropy(model(inputs), targets)).backward()
        expected = total(model) / 1024
        scaler.step(wrapper.optimizer)
    with inspector.open_run(watch.run_path) as run:
        assert values_of(run, "grad_scale") == [1024.0]
        assert values_of(run, "total_grad_norm") == pytest.approx([expected], rel=1e-4)


def test_a_batch_that_is_tried_again_is_no_validation_in_train_mode(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 3))
    optimizer = SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with inspector.watch(model, optimizer, run_dir=tmp_path, every=1, scaler=scaler) as watch:
        watch.validation(val_loss=1.1)
        for step in range(12):
            inputs, targets = batch(step)
            loss = F.cross_entropy(model(inputs), targets)
            watch.record(loss=loss)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            if step == 0:
                next(model.parameters()).grad.fill_(math.inf)  # type: ignore[union-attr]
            scaler.step(optimizer)
            scaler.update()
    with inspector.open_run(watch.run_path) as run:
        structure = run.document("structure")
        assert structure is not None and structure["modes"]["repeated_pass_steps"] == [0]
        assert [finding.code for finding in run.findings() if finding.level != "note"] == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (lambda _: None, "got None. Call it when the optimizer is made"),
        (lambda _: [], r"got \[\]\.$"),
        (lambda model: model, "expects an optimizer or a sequence of them, but got Linear"),
        (lambda _: AcceleratedLike(object()), "hides the optimizer that steps"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_optimizer_is_refused(
    tmp_path: Path, given: Callable[[nn.Module], Any], reason: str
) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(InspectorError, match=reason):
        inspector.watch(model, given(model), run_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("every", [0, 1])
def test_gradients_cleared_by_the_model_do_not_pile_up(tmp_path: Path, every: int) -> None:
    model = small()
    optimizer = SGD(model.parameters(), lr=0.05)
    with inspector.watch(model, optimizer, run_dir=tmp_path, every=every) as watch:
        for step in range(60):
            inputs, targets = batch(step)
            for half in range(2):
                part = slice(8 * half, 8 * half + 8)
                loss = F.cross_entropy(model(inputs[part]), targets[part])
                loss.backward()
            watch.record(loss=loss)
            optimizer.step()
            model.zero_grad()
    with inspector.open_run(watch.run_path) as run:
        assert set(values_of(run, "backward_passes")) == {2.0}


@pytest.mark.parametrize("by", ["optimizer", "model"])
def test_gradients_that_are_cleared_all_the_same_are_told(tmp_path: Path, by: str) -> None:
    model = small()
    optimizer = SGD(model.parameters(), lr=0.05)
    with inspector.watch(model, optimizer, run_dir=tmp_path) as watch:
        for step in range(12):
            if step == 6:
                watch.apply(Command(name="set", control="zero_grad", value=False))
            inputs, targets = batch(step)
            (model if by == "model" else optimizer).zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            watch.record(loss=loss)
            optimizer.step()
    with inspector.open_run(watch.run_path) as run:
        told = [(e.step, e.event.message) for e in run.events() if isinstance(e.event, Notice)]
        assert [step for step, _ in told] == ([8] if by == "model" else [])
        assert all("model.zero_grad()" in message for _, message in told)


class Fabricated(nn.Module):
    """As Fabric wraps a model; ``__name__`` is what it is known by."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._forward_module = self._original_module = module

    def forward(self, x: Tensor) -> Tensor:
        return self._forward_module(x)  # type: ignore[no-any-return]


def test_modules_have_the_names_they_have_inside_fabric(tmp_path: Path) -> None:
    Fabricated.__name__ = "_FabricModule"
    model = small()
    wrapper = Fabricated(model)
    with inspector.watch(wrapper, SGD(model.parameters(), lr=0.1), run_dir=tmp_path) as watch:
        wrapper(batch(0)[0]).sum().backward()
    with inspector.open_run(watch.run_path) as run:
        document = run.document("parameters")
        assert document is not None
        names = [row["name"] for row in document["parameters"]]
        assert names == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("others", ["before", "after", "around", "none"])
@pytest.mark.parametrize("moment", ["before", "in", "after"])
def test_close_inside_a_step_leaves_the_step_alone(
    tmp_path: Path, others: str, moment: str
) -> None:
    model = small()
    optimizer = SGD(model.parameters(), lr=0.1)
    watches: list[Any] = []
    called: list[str] = []

    def end(*_: Any) -> None:
        if watches:
            watches.pop().close()

    def add(name: str) -> None:
        optimizer.register_step_pre_hook(lambda *_: called.append(f"pre {name}"))
        optimizer.register_step_post_hook(lambda *_: called.append(f"post {name}"))

    register: dict[str, Callable[[Any], Any]] = {
        "before": optimizer.register_step_pre_hook,
        "in": lambda _: None,
        "after": optimizer.register_step_post_hook,
    }
    if others in ("before", "around"):
        add("first")
    register[moment](end)
    own = len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)
    watches.append(inspector.watch(model, optimizer, run_dir=tmp_path))
    path = watches[0].run_path
    if others in ("after", "around"):
        add("last")
        own = own[0] + 1, own[1] + 1
    F.cross_entropy(model(batch(0)[0]), batch(0)[1]).backward()
    optimizer.step(end if moment == "in" else None)
    once = called.copy()
    assert not watches
    assert (
        len(optimizer._optimizer_step_pre_hooks),
        len(optimizer._optimizer_step_post_hooks),
    ) == own
    optimizer.step()
    assert called == once * 2
    with inspector.open_run(path) as run:
        assert run.status == "finished"
        assert not [e for e in run.events() if type(e.event).__name__ == "ProbeFailed"]


def test_modules_inside_a_function_transform_say_so(tmp_path: Path) -> None:
    model = small()
    optimizer = SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, every=1) as watch:
        for step in range(3):
            inputs, targets = batch(step)
            values = {name: p.detach() for name, p in model.named_parameters()}
            gradients = torch.func.grad(
                lambda given, x=inputs, y=targets: F.cross_entropy(
                    torch.func.functional_call(model, given, (x,)), y
                )
            )(values)
            for name, p in model.named_parameters():
                p.grad = gradients[name]
            expected = total(model)
            optimizer.step()
    with inspector.open_run(watch.run_path) as run:
        assert values_of(run, "total_grad_norm")[-1] == pytest.approx(expected, rel=1e-4)
        document = run.document("modules")
        assert document is not None
        assert {row["badge"].partition(":")[0] for row in document["modules"]} == {
            "called inside torch.func transforms only"
        }


def test_of_sharded_parameters_each_rank_has_its_part(tmp_path: Path) -> None:
    program = Path(__file__).with_name("sharded_program.py")
    ranks = [
        subprocess.Popen([sys.executable, str(program), str(rank), str(tmp_path)])
        for rank in range(2)
    ]
    try:
        assert [rank.wait(120) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    found = [json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in range(2)]
    assert [one["same"] for one in found] == [True, True]
    with inspector.open_run(tmp_path / "runs" / "job") as run:
        parts = [
            [run.series(name, rank=rank).values for rank in range(2)]
            for name in ("total_grad_norm", "clipped_grad_norm")
        ]
        before, after = ((a**2 + b**2) ** 0.5 for a, b in parts)
        assert before.tolist() == pytest.approx(found[0]["before"], rel=1e-4)
        assert after.tolist() == pytest.approx([0.1] * len(before), rel=1e-4)
        document = run.document("parameters")
        assert document is not None
        assert all("this rank's part" in row["badge"] for row in document["parameters"])
        told = [e.event.message for e in run.events(rank=0) if isinstance(e.event, Notice)]
        assert len(told) == 1 and "the time machine is off" in told[0]
        assert not [e for e in run.events() if type(e.event).__name__ == "ProbeFailed"]
        assert run.findings() == []
