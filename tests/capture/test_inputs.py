"""What the module table says of the tensors that modules are called with."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inspector
from inspector.events import ProbeFailed


class Block(nn.Module):
    """Called as Hugging Face's layers are."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.inner = nn.Linear(4, 4)

    def forward(self, hidden_states: Tensor, *, mask: Tensor | None = None) -> Tensor:
        hidden_states = self.norm(input=hidden_states)
        return self.inner(hidden_states) + (0 if mask is None else mask)  # type: ignore[no-any-return]


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.alone, self.masked = Block(), Block()

    def forward(self, *, values: list[Tensor]) -> Tensor:
        hidden = self.alone(hidden_states=values[0])
        return self.masked(hidden, mask=torch.zeros(1, 4))  # type: ignore[no-any-return]


def shapes(path: Path, model: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Any]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with inspector.watch(model, optimizer, run_dir=path, name="run") as watch:
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(*args, **kwargs)
            loss = (loss.values() if loss.is_nested else loss).square().mean()
            watch.record(loss=loss)
            loss.backward()
            optimizer.step()
        assert not any(len(module._forward_pre_hooks) > 1 for module in model.modules())
    with inspector.open_run(path / "run") as run:
        assert not [e for e in run.events() if isinstance(e.event, ProbeFailed)]
        document = run.document("modules") or {}
    return {row["path"]: (row["inputs"], row["outputs"]) for row in document["modules"]}


def test_tensors_given_by_keyword_are_inputs(tmp_path: Path) -> None:
    found = shapes(tmp_path, Named(), values=[torch.randn(3, 4), torch.randn(5)])
    assert {path: inputs for path, (inputs, _) in found.items()} == {
        "": [[3, 4], [5]],
        "alone": [[3, 4]],
        "alone.norm": [[3, 4]],
        "alone.inner": [[3, 4]],
        "masked": [[3, 4]],  # what comes by position comes first, and is enough
        "masked.norm": [[3, 4]],
        "masked.inner": [[3, 4]],
    }


@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_nested_tensors_have_the_sizes_that_they_share(
    tmp_path: Path, layout: torch.layout
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = torch.nested.nested_tensor([torch.randn(2, 4), torch.randn(3, 4)], layout=layout)

    class Ends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            made = self.linear(x).relu()
            return made if layout is torch.jagged else torch.cat(list(made.unbind()))

    found = shapes(tmp_path, Ends(), batch)
    assert found["linear"] == ([[2, "*", 4]], [[2, "*", 2]])


class Classifier(nn.Module):
    """Called as Hugging Face's models are: everything by keyword, the labels among it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, 5)

    def forward(self, input_ids: Tensor, mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.head((self.embed(input_ids) * mask[..., None]).mean(1))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.parametrize(
    "order", [("labels", "mask", "input_ids"), ("input_ids", "labels", "mask")]
)
def test_what_is_given_by_keyword_is_examined(tmp_path: Path, order: tuple[str, ...]) -> None:
    """The facts that the diagnosis reads are those of the same batches given by position."""
    found = []
    for named in (False, True):
        torch.manual_seed(0)
        model = Classifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with inspector.watch(model, optimizer, run_dir=tmp_path, name=f"{named}") as watch:
            for _ in range(20):
                batch = {
                    "input_ids": torch.randint(0, 50, (8, 6)),
                    "mask": torch.ones(8, 6),
                    "labels": torch.randint(0, 5, (8,)),
                }
                given = {name: batch[name] for name in order}
                loss = (model(**given) if named else model(*batch.values()))["loss"]
                watch.record(loss=loss)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        found.append(inspector.open_run(watch.run_path).document("structure"))
    by_position, by_name = found
    assert by_position["inputs"]["raw_shape"] == [8, 6]
    assert by_position["inputs"]["operation"] == "Embedding"
    assert by_position["order"]["batches_seen"] == 20
    for facts in ("inputs", "input_bursts", "targets", "order", "neighbours"):
        assert by_name[facts] == by_position[facts]


def test_a_loss_called_by_keyword_is_examined(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, criterion = nn.Linear(6, 4), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options: dict[str, Any] = {"run_dir": tmp_path, "name": "run", "loss_fn": criterion}
    with inspector.watch(model, optimizer, **options) as watch:
        for _ in range(4):
            loss = criterion(target=torch.randint(0, 4, (8,)), input=model(torch.randn(8, 6)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    targets = inspector.open_run(watch.run_path).document("structure")["targets"]
    assert targets["outputs_shape"] == [8, 4] and targets["samples"] == 32
