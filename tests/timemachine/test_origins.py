"""Where a NaN was born: named by a replay, for one obvious program of each kind."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inspector
from inspector.commands import Controls
from inspector.events import NonFinite, Origin, Rewound
from inspector.timemachine.history import History
from inspector.timemachine.late import LateFlags
from inspector.timemachine.state import StateCopy


class LogOf(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(x)  # line of log


class RootAtZero(nn.Module):
    """Finite forward, infinite slope at 0."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(x - x.detach())  # line of sqrt


class Masked(nn.Module):
    """-inf on purpose, then a row with nothing left: softmax gives NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x.masked_fill(x > -1e9, float("-inf")), dim=1)  # line of softmax


class Guarded(nn.Module):
    """NaN in the branch that is not taken: loss finite, gradient NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 1e9, torch.log(x - x.detach()), x)  # line of where


def line_of(text: str) -> int:
    lines = Path(__file__).read_text("utf-8").splitlines()
    return next(i for i, line in enumerate(lines, 1) if line.endswith(f"# line of {text}"))


def net(*modules: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), *modules, nn.Linear(5, 3))


def train(
    path: Path,
    model: nn.Module,
    *,
    inputs: Callable[[int], Tensor] | None = None,
    loss_fn: Any = None,
    criterion: Any = None,
    steps: int = 4,
    policy: str = "skip",
    lr: float = 0.1,
    record: Callable[[Tensor], Any] = lambda loss: loss,
) -> inspector.Run:
    """A plain loop; ``criterion`` is called where it is not the module that watch() knows."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    torch.manual_seed(1)
    with inspector.watch(
        model, optimizer, run_dir=path, name="run", every=1, loss_fn=loss_fn,
        controls=Controls(on_nonfinite=policy),  # type: ignore[arg-type]
    ) as watch:  # fmt: skip
        for step in range(steps):
            x = inputs(step) if inputs else torch.randn(8, 6)
            optimizer.zero_grad()
            loss = (criterion or loss_fn)(model(x), torch.arange(8) % 3)
            watch.record(loss=record(loss))
            loss.backward()
            optimizer.step()
    return inspector.open_run(path / "run")


def origins(run: inspector.Run) -> list[Origin]:
    return [stored.event for stored in run.events() if isinstance(stored.event, Origin)]


@pytest.mark.parametrize("how", ["module", "function"])
def test_a_forward_birth_names_op_module_line_shapes_and_samples(tmp_path: Path, how: str) -> None:
    bad = torch.zeros(8, 6)
    model = net(nn.Softplus(), LogOf())
    with torch.no_grad():
        model[0].weight.abs_()
        model[0].bias.zero_()

    def inputs(step: int) -> Tensor:
        x = torch.ones(8, 6)
        if step == 2:
            x[5] = -1e4  # softplus gives 0 there, and log -inf
        return x

    if how == "module":
        run = train(tmp_path, model, inputs=inputs, loss_fn=nn.CrossEntropyLoss())
    else:
        run = train(tmp_path, model, inputs=inputs, criterion=nn.functional.cross_entropy)
    with run:
        (origin,) = origins(run)
        assert (origin.phase, origin.op, origin.module, origin.module_type) == (
            "forward", "log", "2", "LogOf",
        )  # fmt: skip
        assert (Path(origin.file), origin.line) == (Path(__file__), line_of("log"))
        assert (origin.samples, origin.batch) == ([5], 8)
        assert origin.tensors[0]["shape"] == [8, 5]
        assert origin.tensors[0]["low"] == 0.0 and origin.tensors[0]["high"] > 0
        assert origin.how == ("replayed" if how == "module" else "replayed without the loss")
        nonfinite = [s for s in run.events() if isinstance(s.event, NonFinite)]
        assert [(s.step, s.event.op, s.event.module) for s in nonfinite] == [(2, "log", "2")]
    assert bad.isfinite().all()


@pytest.mark.parametrize("how", ["module", "function"])
def test_a_backward_birth_names_the_forward_line(tmp_path: Path, how: str) -> None:
    criterion = nn.CrossEntropyLoss()
    given = {"loss_fn": criterion} if how == "module" else {"criterion": criterion}
    with train(tmp_path, net(RootAtZero()), steps=1, **given) as run:
        (origin,) = origins(run)
    assert (origin.phase, origin.op, origin.module) == ("backward", "SqrtBackward0", "1")
    if hasattr(torch.autograd.graph, "node_creation_hook"):
        assert (Path(origin.file), origin.line) == (Path(__file__), line_of("sqrt"))


def test_infinity_on_purpose_is_not_the_origin(tmp_path: Path) -> None:
    with train(tmp_path, net(Masked()), loss_fn=nn.CrossEntropyLoss(), steps=1) as run:
        (origin,) = origins(run)
    assert (origin.op, origin.line) == ("softmax", line_of("softmax"))


def test_nan_from_the_branch_not_taken(tmp_path: Path) -> None:
    with train(tmp_path, net(Guarded()), loss_fn=nn.CrossEntropyLoss(), steps=1) as run:
        (origin,) = origins(run)
    assert (origin.phase, origin.op) == ("backward", "LogBackward0")


def test_nan_in_the_batch_is_told_apart(tmp_path: Path) -> None:
    def inputs(step: int) -> Tensor:
        x = torch.ones(8, 6)
        x[3, 2] = float("nan") if step == 1 else 1.0
        return x

    with train(tmp_path, net(nn.Tanh()), inputs=inputs, loss_fn=nn.CrossEntropyLoss()) as run:
        (origin,) = origins(run)
    assert (origin.phase, origin.op, origin.samples) == ("data", "the batch's input", [3])


def test_a_loss_outside_the_model_is_told_apart(tmp_path: Path) -> None:
    def criterion(outputs: Tensor, _targets: Tensor) -> Tensor:
        return torch.sqrt(outputs.sum() * 0)

    with train(tmp_path, net(nn.Tanh()), criterion=criterion, steps=1) as run:
        (origin,) = origins(run)
    assert (origin.phase, origin.op, origin.in_loss) == ("backward", "SqrtBackward0", True)


def test_a_divergence_is_rewound_to_finite_parameters(tmp_path: Path) -> None:
    model = net(nn.ReLU())
    with train(
        tmp_path,
        model,
        loss_fn=lambda_loss(),
        lr=3e38,
        steps=6,
        inputs=lambda _: torch.full((8, 6), 1e3),
    ) as run:
        assert [s for s in run.events() if isinstance(s.event, Rewound)]
        assert origins(run)
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def lambda_loss() -> nn.Module:
    class Square(nn.Module):
        def forward(self, outputs: Tensor, _targets: Tensor) -> Tensor:
            return outputs.square().mean()

    return Square()


@pytest.mark.parametrize(("policy", "changes"), [("skip", False), ("continue", True)])
def test_only_continue_lets_the_bad_update_happen(
    tmp_path: Path, policy: str, changes: bool
) -> None:
    model = net(nn.BatchNorm1d(5), LogOf())
    before = copy.deepcopy(model.state_dict())
    train(tmp_path, model, loss_fn=nn.CrossEntropyLoss(), steps=1, policy=policy).close()
    after = model.state_dict()
    same = all(torch.equal(before[name], after[name]) for name in before)
    assert same is not changes


def test_gradients_are_given_back_after_a_held_step(tmp_path: Path) -> None:
    model = net(LogOf())
    train(tmp_path, model, loss_fn=nn.CrossEntropyLoss(), steps=1).close()
    assert all(p.grad is not None for p in model.parameters())


def test_a_spell_is_told_once(tmp_path: Path) -> None:
    with train(tmp_path, net(LogOf()), loss_fn=nn.CrossEntropyLoss(), steps=6) as run:
        assert sum(isinstance(s.event, NonFinite) for s in run.events()) == 1


def test_a_batch_overwritten_in_place_is_not_replayed(tmp_path: Path) -> None:
    shared = torch.ones(8, 6)
    model = net(LogOf())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss_fn = nn.CrossEntropyLoss()
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="run", loss_fn=loss_fn) as watch:
        loss = loss_fn(model(shared), torch.arange(8) % 3)
        watch.record(loss=loss)
        loss.backward()
        shared.zero_()
        optimizer.step()
    with inspector.open_run(tmp_path / "run") as run:
        (origin,) = origins(run)
    assert origin.phase == "unknown" and "overwritten" in origin.note


def test_random_numbers_of_the_replay_are_those_of_the_step(tmp_path: Path) -> None:
    class Rare(nn.Module):
        """NaN only for some draws."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.log(torch.rand(8, 1) - 0.02) + x

    with train(tmp_path, net(Rare()), loss_fn=nn.CrossEntropyLoss(), steps=60) as run:
        found = origins(run)
    assert found
    assert all(origin.op == "log" and origin.samples for origin in found)


def test_the_report_reproduces_it_in_a_process_of_its_own(tmp_path: Path) -> None:
    module = tmp_path / "my_model.py"
    module.write_text(
        "import torch\nfrom torch import nn\n\n\nclass Trap(nn.Module):\n"
        "    def forward(self, x):\n        return torch.log(x)\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        import my_model  # type: ignore[import-not-found]

        with train(tmp_path, net(my_model.Trap()), loss_fn=nn.CrossEntropyLoss(), steps=1) as run:
            (origin,) = origins(run)
            script = run.path / origin.report / "reproduce.py"
    finally:
        sys.path.remove(str(tmp_path))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert "aten.log" in done.stdout and f"{module}:7" in done.stdout
    assert "non-finite gradient: 0.weight" in done.stdout


def test_events_survive_the_store(tmp_path: Path) -> None:
    with train(tmp_path, net(LogOf()), loss_fn=nn.CrossEntropyLoss(), steps=1) as run:
        (origin,) = origins(run)
    assert json.dumps(origin.tensors)
    assert "log" in origin.text and "samples" in origin.text


# ---------------------------------------------------------------- state


@pytest.mark.parametrize("build", [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    lambda p: torch.optim.Adam(p, lr=0.01),
    lambda p: torch.optim.LBFGS(p, lr=0.1),
])  # fmt: skip
def test_a_copy_restores_parameters_buffers_and_optimizer_bit_by_bit(build: Any) -> None:
    model = net(nn.BatchNorm1d(5), nn.ReLU())
    optimizer = build(model.parameters())
    x, y = torch.randn(16, 6), torch.randint(3, (16,))

    def step() -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        optimizer.step(closure)

    step()
    kept = StateCopy()
    kept.take(model, [optimizer], 1)
    want = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
    step()
    step()
    assert kept.restore(model, [optimizer])
    got = (model.state_dict(), optimizer.state_dict()["state"])
    assert flat(got) == flat(want)


def flat(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: flat(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [flat(part) for part in value]
    return value


def test_optimizer_state_younger_than_the_copy_is_dropped() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    kept = StateCopy()
    kept.take(model, [optimizer], 0)
    model(torch.randn(4, 6)).sum().backward()
    optimizer.step()
    assert kept.restore(model, [optimizer])
    assert not optimizer.state


def test_history_keeps_to_its_memory() -> None:
    model, history = net(), History(state_bytes=10)
    history.copy(model, [], 1)
    assert history.slots == [] and "no copy is kept" in history.shortage
    big = History(state_bytes=sum(p.nbytes for p in model.parameters()) * 3 // 2)
    big.copy(model, [], 1)
    big.copy(model, [], 11)
    assert [slot.step for slot in big.slots] == [11]


# ---------------------------------------------------------------- answers that come late


class OneStepLate(LateFlags):
    """As on CUDA: what is known in a step is about the step before."""

    def arrived(self) -> Iterator[tuple[int, int, bool]]:
        newest = self._waiting.pop()
        found = list(super().arrived())
        self._waiting.append(newest)
        return iter(found)


def test_an_answer_that_comes_a_step_late_is_rewound_and_replayed(tmp_path: Path) -> None:
    model = net(nn.BatchNorm1d(5), nn.Softplus(), LogOf())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loss_fn = nn.CrossEntropyLoss()
    torch.manual_seed(1)
    with inspector.watch(
        model, optimizer, run_dir=tmp_path, name="run", loss_fn=loss_fn,
        controls=Controls(on_nonfinite="skip"),
    ) as watch:  # fmt: skip
        machine = watch._recorder.timemachine
        machine._late = OneStepLate()
        check = machine._check[0]
        start = check.start
        check.start = lambda g: torch.tensor(float(bool(start(g))))  # type: ignore[method-assign]
        for step in range(20):
            x = torch.randn(8, 6)
            x[3] = float("inf") if step == 14 else x[3]
            optimizer.zero_grad()
            loss = loss_fn(model(x), torch.arange(8) % 3)
            watch.record(loss=loss)
            loss.backward()
            optimizer.step()
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    with inspector.open_run(tmp_path / "run") as run:
        (origin,) = origins(run)
        (bad,) = [s.step for s in run.events() if isinstance(s.event, Origin)]
    assert (bad, origin.phase, origin.op, origin.samples) == (14, "data", "the batch's input", [3])
