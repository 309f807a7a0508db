"""Capture on a device: the numbers, and that the host does not wait for them.

On the stand-in of ``stand_in.py`` everywhere, and on CUDA itself where there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from listening import Listening, observe, values
from oracle import Found, Oracle
from stand_in import cuda, stand_in
from test_oracles import BLIND, ELSEWHERE, STEPS, assert_agree
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from zoo import ZOO, Case, mlp, plain_loop

import inspector
from inspector.events import NonFinite, ProbeFailed
from inspector.recording import boundary

Device = Callable[[], AbstractContextManager[Any]]

ON_HOST = {"packed_rnn"}  # the lengths of its sequences have to be on the host


@pytest.fixture(
    params=[
        "stand-in",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
            ],
        ),
    ]
)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Device:
    way = cuda if request.param == "cuda" else stand_in
    return lambda: way(monkeypatch)


def expected(name: str, place: Device) -> list[Found]:
    """What a twin that nobody watches says: of the stand-in on the CPU, else on the device."""
    if not torch.cuda.is_available():
        torch.manual_seed(3)
        return Oracle(ZOO[name]()).run(STEPS)
    with place():
        torch.manual_seed(3)
        return Oracle(ZOO[name]()).run(STEPS)


@pytest.mark.parametrize("name", sorted(set(ZOO) - ELSEWHERE - BLIND - ON_HOST))
def test_every_number_equals_its_oracle(name: str, device: Device) -> None:
    twin = expected(name, device)
    torch.manual_seed(3)
    with device() as place:
        case = ZOO[name]()
        observer, listening = observe(case, scaler=case.scaler)
        place.patient = False
        for _ in range(STEPS):
            case.iterate()
            place.now += 1
        place.patient = True
        waits = list(place.waits)
        observer.close()
    assert waits == []
    assert [str(error) for _, error in listening.failures] == []
    assert len(listening.rows) == STEPS
    loose = name in ("bfloat16", "float16", "autocast")
    for right, row in zip(twin, listening.rows, strict=True):
        found = {**values(row.parameters), **values(row.modules)}
        assert_agree(right, found, 2e-2 if loose else 2e-4)
        wanted = {key for key in right if key[0].startswith(("grad_", "weight_", "update_"))}
        assert wanted <= set(found)


def watched(
    path: Path, place: Any, case: Case, steps: int, patient: Callable[[int], bool], every: int = 1
) -> inspector.Run:
    with inspector.watch(
        case.model, case.optimizers, run_dir=path, name="run", every=every
    ) as watch:
        for step in range(steps):
            place.patient = patient(step)
            watch.record(loss=case.iterate())
            place.now += 1
        place.patient = True
    return inspector.open_run(path / "run")


def test_numbers_that_are_not_finite_are_counted_exactly(device: Device) -> None:
    with device() as place:
        model = nn.Sequential(nn.Linear(6, 300), nn.Linear(300, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        observer, listening = observe(Case(model, [optimizer], lambda: torch.zeros(())))
        model(torch.randn(8, 6)).square().mean().backward()
        gradient = model[0].weight.grad
        assert isinstance(gradient, Tensor)
        with torch.no_grad():
            gradient[:7, 0] = torch.nan
            gradient[7:10, 1] = torch.inf
            gradient[10, 1] = -torch.inf
        place.patient = False
        optimizer.step()
        place.patient = True
        observer.close()
    found = values(listening.rows[0].parameters)
    # They came after the backward pass, so they are what the optimizer received.
    assert found["grad_norm_clipped", "0.weight"] != found["grad_norm_clipped", "0.weight"]
    assert found["grad_norm", "0.weight"] > 0
    assert found["grad_nonfinite", "0.weight"] == 0


class Spoil(torch.autograd.Function):
    """Puts what is not finite into a gradient."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        spoilt = gradient.clone()
        spoilt[0, :2] = torch.inf
        spoilt[0, 2] = torch.nan
        return spoilt


class Spoilt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 5))
        self.other = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        return x @ Spoil.apply(self.weight) + self.other  # type: ignore[no-any-return]


def test_spoilt_gradients_are_counted_one_by_one(device: Device) -> None:
    with device() as place:
        model = Spoilt()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        listening = Listening()
        observer, _ = observe(
            Case(model, [optimizer], lambda: torch.zeros(())), listening=listening
        )
        place.patient = False
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        place.patient = True
        observer.close()
    found = values(listening.rows[0].parameters)
    assert found["grad_nonfinite", "weight"] == 3
    assert found["grad_nonfinite", "other"] == 0
    assert found["grad_max", "other"] == 2


def test_large_numbers_do_not_overflow_a_norm(device: Device) -> None:
    with device() as place:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
        case = plain_loop(model, shape=(4, 3), pick=lambda output: output * 1e12)
        observer, listening = observe(case)
        place.patient = False
        case.iterate()
        place.patient = True
        norm = float(case.model[0].weight.grad.double().norm())  # type: ignore[union-attr,operator]
        observer.close()
    assert norm > 1e19
    found = values(listening.rows[0].parameters)
    assert found["grad_norm", "0.weight"] == pytest.approx(norm, rel=1e-4)


class Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def launched(depth: int, place: Any) -> int:
    """Operations of a fully measured step beyond those of the training."""
    layers = [part for _ in range(depth) for part in (nn.Linear(4, 4), nn.ReLU())]
    case = plain_loop(nn.Sequential(*layers, nn.Linear(4, 3)), shape=(8, 4))
    counts = []
    for watching in (False, True):
        observer = observe(case)[0] if watching else None
        for _ in range(3):
            case.iterate()
            place.now += 1
        with Counting() as counting:
            case.iterate()
        counts.append(counting.count)
        if observer is not None:
            observer.close()
    return counts[1] - counts[0]


def test_parameters_cost_no_operations_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a device's host some microseconds; those of outputs cannot be joined."""
    with stand_in(monkeypatch) as place:
        few, many = launched(5, place), launched(25, place)
    modules = 2 * 20
    assert (many - few) / modules <= 7


def classifier(model: nn.Module, inputs: Tensor, *, clear: bool = True) -> Case:
    targets = torch.arange(len(inputs)) % 3
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def iterate() -> Tensor:
        if clear:
            optimizer.zero_grad()
        picked = torch.randperm(len(inputs))[:16]
        loss = nn.functional.cross_entropy(model(inputs[picked]), targets[picked])
        loss.backward()
        optimizer.step()
        return loss

    return Case(model, [optimizer], iterate)


def dying() -> Case:
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))
    with torch.no_grad():
        model[0].bias[:7] = -50.0  # these never fire
        model[2].weight[:] = model[2].weight[0].clone()
    return classifier(model, torch.randn(64, 6))


def pictures() -> Case:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid(), nn.Flatten(), nn.Linear(144, 3)
    )
    return classifier(model, 200 + 50 * torch.randn(64, 3, 8, 8))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(9, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(len(x), 6)
        for _ in range(24):
            state = torch.tanh(self.cell(torch.cat([x, state], 1)))
        return self.head(state)  # type: ignore[no-any-return]


PROGRAMS: dict[str, Callable[[], Case]] = {
    "dying": dying,
    "pictures": pictures,
    "kept gradients": lambda: classifier(mlp(), torch.randn(64, 6), clear=False),
    "recurrent": lambda: classifier(Recurrent(), torch.randn(64, 3)),
    "numbers": lambda: plain_loop(mlp()),
    "two optimizers": ZOO["gan"],
}


def facts(run: inspector.Run) -> dict[str, Any]:
    """What is known of the program at the end; the order of batches is known on the CPU only."""
    found = run.document("structure")
    assert found is not None
    order, _ = found.pop("order"), found.pop("step")
    return {**found, "inputs_between": order["inputs_between"]}


def assert_alike(one: Any, other: Any, at: str = "") -> None:
    if isinstance(one, dict):
        assert sorted(one) == sorted(other), at
        for key, value in one.items():
            assert_alike(value, other[key], f"{at}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), at
        for place, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_alike(left, right, f"{at}[{place}]")
    elif isinstance(one, float) and isinstance(other, (int, float)):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-6), at
    else:
        assert one == other, at


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_known_of_a_program_is_the_same_and_nobody_waits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 60  # the first ones, and a later burst
    monkeypatch.setattr(boundary, "_GRAPH_STEP", -1)  # capturing a graph does wait
    torch.manual_seed(5)
    with inspector.watch(
        *_parts(twin := PROGRAMS[name]()), run_dir=tmp_path, name="twin", every=1
    ) as watch:
        for _ in range(steps):
            watch.record(loss=twin.iterate())
    with stand_in(monkeypatch) as place:
        torch.manual_seed(5)
        # The graph that is captured unasked waits, as one does that is asked for.
        run = watched(tmp_path, place, PROGRAMS[name](), steps, lambda _: False)
        assert place.waits == []
    with run, inspector.open_run(tmp_path / "twin") as expected:
        assert [s.event for s in run.events() if isinstance(s.event, ProbeFailed)] == []
        assert len(run.series("total_grad_norm", "")) == steps
        assert_alike(facts(expected), facts(run))


def _parts(case: Case) -> tuple[nn.Module, list[torch.optim.Optimizer]]:
    return case.model, case.optimizers


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", PROGRAMS)
def test_nobody_waits_for_cuda(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boundary, "_GRAPH_STEP", -1)
    with cuda(monkeypatch) as place:
        torch.manual_seed(5)
        run = watched(tmp_path, place, PROGRAMS[name](), 60, lambda _: False)
        assert place.waits == []
    with run:
        assert [s.event for s in run.events() if isinstance(s.event, ProbeFailed)] == []
        assert facts(run)["parameters"]


def test_what_is_born_on_a_device_is_told_with_operation_and_step(
    tmp_path: Path, device: Device
) -> None:
    class Log(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.log(x)

    with device() as place:
        model = nn.Sequential(nn.Linear(6, 6), Log(), nn.Linear(6, 3))
        nn.init.constant_(model[0].bias, 9.0)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        step = 0

        def iterate() -> Tensor:
            nonlocal step
            step += 1
            optimizer.zero_grad()
            loss = model(torch.full((8, 6), -1e4 if step == 21 else 0.1)).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        run = watched(tmp_path, place, Case(model, [optimizer], iterate), 30, lambda _: True)
    with run:
        told = [(s.step, s.event) for s in run.events() if isinstance(s.event, NonFinite)]
        assert [(at, event.op, event.module) for at, event in told] == [(20, "log", "1")]
