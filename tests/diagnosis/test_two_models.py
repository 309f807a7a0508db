"""Models that are called several times a step, on data and on what another one has made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

import inspector
from inspector.diagnosis.finding import Finding
from inspector.store.reader import Run
from inspector.views.actions import actions

STEPS = 60


class Gan(nn.Module):
    """Data at the bounds of tanh, so that a good generator saturates."""

    def __init__(self) -> None:
        super().__init__()
        head = nn.Linear(16, 12)
        self.generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), head, nn.Tanh())
        self.discriminator = nn.Sequential(nn.Linear(12, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
        with torch.no_grad():
            head.weight.mul_(30)


def batches(*, sorted_: bool = False) -> Iterator[Tensor]:
    """With ``sorted_``, the samples of each of eight kinds stand together."""
    kinds = torch.randn(8, 12).sign() * 0.99
    for step in range(STEPS):
        kind = torch.full((32,), step // 4 % 8) if sorted_ else torch.randint(8, (32,))
        yield kinds[kind] + 0.01 * torch.randn(32, 12)


def gan(path: Path, *, whole: bool = True, sorted_: bool = False, detached: bool = True) -> Run:
    torch.manual_seed(0)
    model = Gan()
    of_d = torch.optim.Adam(model.discriminator.parameters(), lr=2e-4)
    of_g = torch.optim.Adam(model.generator.parameters(), lr=2e-4)
    watched: Any = (model, [of_d, of_g]) if whole else (model.discriminator, of_d)
    with inspector.watch(*watched, run_dir=path) as watch:
        for real in batches(sorted_=sorted_):
            noise = torch.randn(32, 4)
            fake = model.generator(noise)
            with torch.set_grad_enabled(detached):
                seen = fake.detach() if detached else model.generator(noise)
            of_d.zero_grad()
            d_loss = bce(model.discriminator(real), torch.ones(32, 1))
            d_loss = d_loss + bce(model.discriminator(seen), torch.zeros(32, 1))
            d_loss.backward()  # type: ignore[no-untyped-call]
            of_d.step()
            of_g.zero_grad()
            g_loss = bce(model.discriminator(fake), torch.ones(32, 1))
            g_loss.backward()  # type: ignore[no-untyped-call]
            of_g.step()
            watch.record(d_loss=d_loss, g_loss=g_loss)
    return Run(watch.run_path)


def found(run: Run, code: str) -> list[Finding]:
    return [finding for finding in run.findings() if finding.code == code]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("detached", [True, False])
def test_real_and_made_batches_in_turn_are_no_missing_shuffle(
    tmp_path: Path, whole: bool, detached: bool
) -> None:
    run = gan(tmp_path, whole=whole, detached=detached)
    assert found(run, "no_shuffle") == []
    structure = run.document("structure")
    assert structure is not None
    assert 0.5 < structure["order"]["inputs_between"] < 2  # measured, and as chance has it


def test_sorted_data_is_found_beside_a_generator(tmp_path: Path) -> None:
    """The discriminator alone is watched: the real batches are one of its calls."""
    torch.manual_seed(0)
    model = Gan().discriminator
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with inspector.watch(model, optimizer, run_dir=tmp_path) as watch:
        for real in batches(sorted_=True):
            optimizer.zero_grad()
            half = real[:16], real[16:]  # two micro-batches: each place has sorted ones
            for part in half:
                loss = bce(model(part), torch.ones(16, 1))
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            watch.record(loss=loss)
    (finding,) = found(Run(watch.run_path), "no_shuffle")
    assert finding.level == "warning"


def test_the_head_of_a_generator_may_saturate(tmp_path: Path) -> None:
    assert found(gan(tmp_path), "saturated_activation") == []


def test_a_saturated_code_between_two_models_is_found(tmp_path: Path) -> None:
    """The decoder is given nothing but codes: they are hidden activations."""
    torch.manual_seed(0)
    encoder, decoder = nn.Sequential(nn.Linear(12, 6), nn.Tanh()), nn.Linear(6, 12)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(60)
    both = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    optimizer = torch.optim.SGD(both.parameters(), lr=1e-4)
    with inspector.watch(both, optimizer, run_dir=tmp_path) as watch:
        for batch in batches():
            optimizer.zero_grad()
            loss = (decoder(encoder(batch)) - batch).square().mean()
            loss.backward()
            optimizer.step()
            watch.record(loss=loss)
    (finding,) = found(Run(watch.run_path), "saturated_activation")
    assert (finding.module, finding.level) == ("encoder.0", "warning")


@pytest.mark.parametrize("kind", ["unused", "frozen", "forgotten", "detached"])
def test_unfreezing_is_offered_where_it_does_something(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"first": nn.Linear(12, 8), "odd": nn.Linear(8, 8), "last": nn.Linear(8, 1)}
    )
    stepped = [
        p for name, p in model.named_parameters() if kind != "forgotten" or "odd" not in name
    ]
    model["odd"].requires_grad_(kind != "frozen")
    optimizer = torch.optim.SGD(stepped, lr=1e-2)
    with inspector.watch(model, optimizer, run_dir=tmp_path) as watch:
        for batch in batches():
            optimizer.zero_grad()
            hidden = model["first"](batch).relu()
            if kind == "detached":
                hidden = hidden + model["odd"](hidden).detach()
            elif kind != "unused":
                hidden = model["odd"](hidden)
            loss = model["last"](hidden).square().mean()
            loss.backward()
            optimizer.step()
            watch.record(loss=loss)
    (finding,) = found(Run(watch.run_path), "frozen_parameters")
    assert finding.module == "odd"
    offered = [action.label for action in actions(finding, {}, [])]
    assert ("Unfreeze odd" in offered) == (kind in ("frozen", "forgotten"))
