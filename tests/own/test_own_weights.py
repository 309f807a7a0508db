"""Weights from files: compared first, partly taken when asked, hostile ones refused unopened."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from inspector.config import RunConfig
from inspector.errors import ModelError
from inspector.training.own.weights import compare, load_weights, read_weights
from inspector.training.task import build_task


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.mark.parametrize("wrapper", ["", "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_checkpoints_of_the_usual_shapes(tmp_path: Path, wrapper: str, prefix: str) -> None:
    wanted = net()
    state: Any = {f"{prefix}{name}": value for name, value in wanted.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "w.pt")
    model = net()
    assert load_weights(model, str(tmp_path / "w.pt")).complete
    for mine, theirs in zip(model.state_dict().values(), wanted.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_safetensors(tmp_path: Path) -> None:
    wanted = net()
    save_file(dict(wanted.state_dict()), tmp_path / "w.safetensors")
    model = net()
    load_weights(model, str(tmp_path / "w.safetensors"))
    assert torch.equal(model[0].weight, wanted[0].weight)


def test_a_mismatch_is_listed_and_taken_in_part(tmp_path: Path) -> None:
    state = dict(net().state_dict())
    del state["0.bias"]
    state["2.weight"] = torch.zeros(5, 4)
    state["extra"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pth")
    compared = compare(net(), state)
    assert compared.missing == ("0.bias",)
    assert compared.unexpected == ("extra",)
    assert compared.different == (("2.weight", (2, 4), (5, 4)),)
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sentence = (
        r"1 missing \(0\.bias\); 1 unexpected \(extra\); 1 of another shape \(2\.weight \(2, 4\) "
        r"in the model, \(5, 4\) in the file\); set weights_partial to take the 7 that fit"
    )
    with pytest.raises(ModelError, match=sentence):
        load_weights(model, str(tmp_path / "w.pth"))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    load_weights(model, str(tmp_path / "w.pth"), partial=True)
    assert torch.equal(model[0].weight, state["0.weight"])
    assert torch.equal(model[2].weight, before["2.weight"])


def test_a_run_starts_from_weights(tmp_path: Path) -> None:
    first = build_task(RunConfig(seed=1)).model
    torch.save(first.state_dict(), tmp_path / "w.pt")
    second = build_task(RunConfig(seed=2, weights=str(tmp_path / "w.pt"))).model
    assert torch.equal(first.head.weight, second.head.weight)  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="of another shape"):
        build_task(RunConfig(weights=str(tmp_path / "w.pt"), model_args={"hidden": 7}))


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    torch.save({"weight": Canary(canary)}, tmp_path / "w.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps({"weight": Canary(canary)}))
    for name in ("w.pt", "raw.pt"):
        with pytest.raises(ModelError, match=r"wants to run code|cannot be read"):
            read_weights(str(tmp_path / name))
    assert not canary.exists()


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(2**40)}, tmp_path / "w.pt")
    assert (tmp_path / "w.pt").stat().st_size < 4000
    with pytest.raises(ModelError, match=r"claims 1,099,511,627,776 elements in a storage of 4"):
        read_weights(str(tmp_path / "w.pt"))


def test_a_packed_archive_is_not_opened(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(10_000_000 // 4)}, tmp_path / "w.pt")
    with (
        zipfile.ZipFile(tmp_path / "w.pt") as plain,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for record in plain.infolist():
            packed.writestr(record.filename, plain.read(record))
    with pytest.raises(ModelError, match="does not write such files"):
        read_weights(str(tmp_path / "packed.pt"))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("w.pt", b"", "empty"),
        ("w.pt", b"not a file of weights", "cannot be read|wants to run"),
        ("w.safetensors", b"\xff" * 64, "not a valid safetensors file"),
        ("w.bin", b"x", r"in a file of \.pt"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=sentence):
        read_weights(str(tmp_path / name))


@pytest.mark.parametrize(
    "content", [torch.zeros(2), {"lr": 0.1}, {"a": torch.zeros(2).to_sparse()}]
)
def test_only_dense_tensors_by_name(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"Expected (a state_dict|tensors|plain dense)"):
        read_weights(str(tmp_path / "w.pt"))
