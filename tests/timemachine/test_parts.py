"""Models whose parts are called one by one: a GAN, an encoder and a decoder in one container."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inspector
from inspector.capture.wrappers import parts_called
from inspector.events import Origin
from inspector.timemachine.hooks import OnEnter
from inspector.timemachine.parts import Survey

BAD = 30


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 8)
        self.outer = nn.Linear(8, 6)
        self.kind = ""

    def forward(self, noise: Tensor) -> Tensor:
        hidden = torch.relu(self.inner(noise))
        if self.kind == "forward":
            hidden = torch.log(hidden - 1.0)
        if self.kind == "backward":
            hidden = torch.sqrt(hidden * 0.0)
        return self.outer(hidden)  # type: ignore[no-any-return]


def parts_of(kind: str) -> tuple[nn.Module, Any, Any]:
    made = {"generator": Generator(), "discriminator": nn.Sequential(nn.Linear(6, 1))}
    if kind == "dict":
        return nn.ModuleDict(made), made["generator"], made["discriminator"]
    holder = nn.Module()
    for name, module in made.items():
        holder.add_module(name, module)
    return holder, made["generator"], made["discriminator"]


@pytest.mark.parametrize("container", ["dict", "module"])
@pytest.mark.parametrize(
    ("kind", "op", "value"), [("forward", "log", "NaN"), ("backward", "SqrtBackward0", "infinity")]
)
def test_the_origin_in_a_gan_is_named(
    tmp_path: Path, container: str, kind: str, op: str, value: str
) -> None:
    torch.manual_seed(0)
    model, generator, discriminator = parts_of(container)
    first, second = (torch.optim.Adam(part.parameters()) for part in (discriminator, generator))
    loss_fn = nn.BCEWithLogitsLoss()
    with inspector.watch(model, [first, second], run_dir=tmp_path, name="run") as watch:
        for step in range(BAD + 2):
            generator.kind = kind if step == BAD else ""
            made = generator(torch.randn(16, 4))
            second.zero_grad()
            loss_fn(discriminator(made), torch.ones(16, 1)).backward()
            second.step()
            first.zero_grad()
            loss = loss_fn(discriminator(torch.randn(16, 6)), torch.ones(16, 1))
            loss = loss + loss_fn(discriminator(made.detach()), torch.zeros(16, 1))
            watch.record(loss=loss)
            loss.backward()
            first.step()
    with inspector.open_run(tmp_path / "run") as run:
        origin_step, origin = next(
            (e.step, e.event) for e in run.events() if isinstance(e.event, Origin)
        )
    assert (origin_step, origin.phase, origin.op, origin.value) == (BAD, kind, op, value)
    assert (origin.module, origin.module_type) == ("generator", "Generator")
    line = "torch.log(hidden - 1.0)" if kind == "forward" else "torch.sqrt(hidden * 0.0)"
    assert line in origin.code
    script = tmp_path / "run" / origin.report / "reproduce.py"
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=120
    )
    shown = "aten.log" if kind == "forward" else "SqrtBackward0"
    assert shown in done.stdout and "gives NaN or infinity" in done.stdout


@pytest.mark.parametrize("steps_first", [False, True])
def test_a_bad_batch_of_an_encoder_is_told(tmp_path: Path, steps_first: bool) -> None:
    """With one optimizer; a part that calls another one is one call."""

    class Decoder(nn.Module):
        def __init__(self, encoder: nn.Module) -> None:
            super().__init__()
            self.encoder, self.back = encoder, nn.Linear(4, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.back(self.encoder(x))  # type: ignore[no-any-return]

    holder: Any = nn.Module()
    holder.encoder = nn.Sequential(nn.Linear(8, 4), nn.Tanh())
    holder.decoder = Decoder(holder.encoder)
    optimizer = torch.optim.SGD(holder.parameters(), lr=0.1)
    with inspector.watch(holder, optimizer, run_dir=tmp_path, name="run") as watch:
        for step in range(12):
            x = torch.randn(4, 8)
            if step == 9:
                x[2] = torch.nan
            optimizer.zero_grad()
            code = holder.encoder(x) if steps_first else 0.0
            loss = (holder.decoder(x) - x).square().mean() + torch.as_tensor(code).mean()
            watch.record(loss=loss)
            loss.backward()
            assert len(watch.timemachine._attempt.calls) == 1 + steps_first
            optimizer.step()
    with inspector.open_run(tmp_path / "run") as run:
        origins = [(e.step, e.event) for e in run.events() if isinstance(e.event, Origin)]
    step, origin = origins[0]
    assert (step, origin.phase, origin.samples) == (9, "data", [2])


def test_the_gradient_of_a_part_that_calls_another_one_is_its_own(tmp_path: Path) -> None:
    class Whole(nn.Module):
        def __init__(self, encoder: nn.Module) -> None:
            super().__init__()
            self.encoder, self.back, self.bad = encoder, nn.Linear(4, 8), False

        def forward(self, x: Tensor) -> Tensor:
            back = self.back(self.encoder(x))
            return torch.sqrt(back * 0.0) if self.bad else back

    holder: Any = nn.Module()
    holder.encoder = nn.Sequential(nn.Linear(8, 4), nn.Tanh()).eval()  # not seen by itself
    holder.whole = Whole(holder.encoder)
    holder.whole.training = True
    optimizer = torch.optim.SGD(holder.parameters(), lr=0.1)
    with inspector.watch(holder, optimizer, run_dir=tmp_path, name="run") as watch:
        for step in range(12):
            holder.whole.bad = step == 9
            optimizer.zero_grad()
            loss = (holder.whole(torch.randn(4, 8)) - 1.0).square().mean()
            watch.record(loss=loss)
            loss.backward()
            optimizer.step()
    with inspector.open_run(tmp_path / "run") as run:
        origins = [(e.step, e.event) for e in run.events() if isinstance(e.event, Origin)]
    step, origin = origins[0]
    assert (step, origin.phase, origin.op) == (9, "backward", "SqrtBackward0")
    assert "torch.sqrt(back * 0.0)" in origin.code


def test_what_a_script_can_call() -> None:
    linear = nn.Linear(2, 2)
    assert list(parts_called(nn.Sequential(linear))) == [""]
    assert list(parts_called(nn.ModuleList([linear, nn.ModuleDict({"b": nn.ReLU()})]))) == [
        "0",
        "1.b",
    ]

    class LightningModule(nn.Module):
        def forward(self, *args: Any) -> Any:
            return super().forward(*args)

    class Task(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Linear(2, 2)

    assert list(parts_called(Task())) == ["network"]
    scripted = torch.jit.script(nn.Sequential(nn.Linear(2, 2)))
    assert list(parts_called(scripted)) == [""]


class Coder(nn.Module):
    """Has a forward, which the scripts below never use."""

    def __init__(self, kind: str = "") -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 5), Kink(), nn.Linear(5, 4))
        self.unused = nn.Linear(4, 4)
        self.decoder = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6))
        self.first = nn.ModuleList([Kink()])
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encoder(x))

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(self.first[0](z))  # type: ignore[no-any-return]


class Kink(nn.Module):
    kind = ""

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "forward":
            return torch.log(x.abs() * 0.0 - 1.0)
        if self.kind == "backward":
            return torch.sqrt(x * 0.0)
        return x


def heard(module: nn.Module) -> bool:
    """Whether the time machine listens to its calls."""
    return any(isinstance(hook, OnEnter) for hook in module._forward_pre_hooks.values())


def code(
    path: Path, kind: str, place: str, *, loss_fn: Any = None, steps: int = BAD + 2
) -> list[tuple[int, Origin]]:
    torch.manual_seed(0)
    model: Any = Coder()
    model.decoder.requires_grad_(place != "first")  # the bad gradient goes past all parameters
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    kink = {"encoder": model.encoder[1], "first": model.first[0]}.get(place)
    with inspector.watch(model, optimizer, run_dir=path, name="run", loss_fn=loss_fn) as watch:
        for step in range(steps):
            x = torch.randn(8, 6)
            if step == BAD:
                if kink is not None:
                    kink.kind = kind
                elif place == "batch":
                    x[3] = torch.nan
            optimizer.zero_grad()
            z = model.encoder(x)
            if place == "script" and step == BAD:
                z = torch.log(-z.abs()) if kind == "forward" else torch.sqrt(z * 0.0)
            loss = (loss_fn or nn.functional.mse_loss)(model.decode(z), torch.zeros(8, 6))
            watch.record(loss=loss)
            loss.backward()
            optimizer.step()
            if step > 4:  # what other parts call has no hook any more
                outer = {model, model.encoder, model.unused, model.first[0], model.decoder}
                assert {m for m in model.modules() if heard(m)} == outer
            if kink is not None:
                kink.kind = ""
        assert watch.timemachine.history.calls
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    with inspector.open_run(path / "run") as run:
        return [(e.step, e.event) for e in run.events() if isinstance(e.event, Origin)]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("place", "module"), [("encoder", "encoder.1"), ("first", "first.0"), ("batch", None)]
)
@pytest.mark.parametrize("kind", ["forward", "backward"])
def test_a_model_of_which_only_parts_are_called(
    tmp_path: Path, kind: str, place: str, module: str | None, known: bool
) -> None:
    origins = code(tmp_path, kind, place, loss_fn=nn.MSELoss() if known else None)
    step, origin = origins[0]
    if place == "batch":
        assert (step, origin.phase, origin.samples) == (BAD, "data", [3])
        return
    op = "log" if kind == "forward" else "SqrtBackward0"
    assert (step, origin.phase, origin.op, origin.module) == (BAD, kind, op, module)
    assert origin.module_type == "Kink"
    line = "torch.log(x.abs() * 0.0 - 1.0)" if kind == "forward" else "torch.sqrt(x * 0.0)"
    assert line in origin.code


@pytest.mark.parametrize(
    ("kind", "words"),
    [("forward", "first.0 was given it"), ("backward", "the gradient of what encoder had")],
)
def test_code_of_the_script_between_two_parts_is_told_as_that(
    tmp_path: Path, kind: str, words: str
) -> None:
    step, origin = code(tmp_path, kind, "script")[0]
    assert (step, origin.phase) == (BAD, "unknown")
    assert words in origin.note and "the script's code" in origin.note


def test_a_model_that_is_called_later_is_replayed_whole_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = Coder()
    optimizer = torch.optim.Adam(model.parameters())
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="run") as watch:
        for step in range(BAD + 2):
            x = torch.randn(8, 6)
            optimizer.zero_grad()
            model.encoder[1].kind = "backward" if step == BAD else ""
            loss = (model.decode(model.encoder(x)) if step < 5 else model(x)).square().mean()
            watch.record(loss=loss)
            loss.backward()
            assert len(watch.timemachine._attempt.calls) == (0, 3, 1)[(step > 0) + (step >= 5)]
            optimizer.step()
    with inspector.open_run(tmp_path / "run") as run:
        step, origin = next((e.step, e.event) for e in run.events() if isinstance(e.event, Origin))
    assert (step, origin.op, origin.module) == (BAD, "SqrtBackward0", "encoder.1")


def test_listening_to_parts_stops_where_it_costs_too_much() -> None:
    class Toggle:
        on = True

        def switch(self, on: bool) -> None:
            self.on = on

    linear, relu = nn.Linear(1, 1), nn.ReLU()
    toggles: Any = {id(linear): (Toggle(),), id(relu): (Toggle(),)}
    survey = Survey(toggles)
    survey.outer(linear)
    survey.inner(relu)
    survey.end_step(0, lambda: 0)
    assert list(toggles) == [id(linear)]
    for step in range(32):
        survey.end_step(20, lambda step=step: 1000 * (step + 1))  # type: ignore[misc]
    assert not survey.costly
    for step in range(32, 64):
        survey.end_step(40, lambda step=step: 1000 * (step + 1))  # type: ignore[misc]
    assert survey.costly
