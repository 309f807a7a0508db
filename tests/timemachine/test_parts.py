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
            assert len(watch.timemachine._calls) == 1 + steps_first
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
