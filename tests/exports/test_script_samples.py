"""Scripts of transcriptions, and of data of one's own that is not the same tensors each time."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted import assert_same, assert_script_repeats, execute, go_on, run, weights

import inspector
from inspector.config import RunConfig
from inspector.exports.export import export

OWN = """
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, TensorDataset

def sequences(classes=5, count=60):
    random = torch.Generator().manual_seed(3)
    for _ in range(count):
        y = torch.randint(1, classes, (int(torch.randint(1, 4, (), generator=random)),),
                          generator=random)
        yield nn.functional.one_hot(y, classes).float().repeat_interleave(4, 0), y

class Words(Dataset):
    def __init__(self):
        self.rows = list(sequences())
    def __len__(self):
        return len(self.rows)
    def __getitem__(self, row):
        return self.rows[row]

class Reader(nn.Module):
    def __init__(self, in_features=5, num_classes=5):
        super().__init__()
        self.steps = nn.GRU(in_features, 6, batch_first=True)
        self.head = nn.Linear(6, num_classes)
    def forward(self, x):
        return self.head(self.steps(x)[0]).log_softmax(-1)

class Rows(Dataset):
    def __init__(self):
        self.x = torch.randn(90, 4, generator=torch.Generator().manual_seed(1)).double()
    def __len__(self):
        return len(self.x)
    def __getitem__(self, row):
        return self.x[row], int(self.x[row].sum() > 0)

class Noisy(Rows):
    def __getitem__(self, row):
        return self.x[row].float() + torch.randn(4) / 10, int(self.x[row].sum() > 0)

class FromFile(Noisy):
    def __init__(self):
        super().__init__()
        self.x = self.x * float((Path(__file__).parent / "factor.txt").read_text())

class Net(nn.Module):
    def __init__(self, in_features=4, num_classes=2):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(in_features, 8), nn.Dropout(0.2),
                                    nn.Linear(8, num_classes))
    def forward(self, x):
        return self.layers(x)

def loader():
    rows = [Rows()[row] for row in range(90)]
    x, y = torch.stack([x for x, _ in rows]), torch.tensor([y for _, y in rows]).int()
    random = torch.Generator().manual_seed(5)
    return DataLoader(TensorDataset(x, y), 16, shuffle=True, generator=random)
"""

PADDED = """
from own import *

class Last(nn.Module):
    def __init__(self, in_features=5, num_classes=2):
        super().__init__()
        self.reader = Reader(in_features, num_classes)
    def forward(self, x):
        return self.reader(x)[:, -1]

class Parity(Words):
    def __getitem__(self, row):
        return self.rows[row][0], len(self.rows[row][1]) % 2

def collate_fn(samples):
    return pad_sequence([x for x, _ in samples], batch_first=True), torch.tensor(
        [y for _, y in samples])
"""

STEPS = """
from own import *

class Dicts(Rows):
    def __getitem__(self, row):
        x, y = super().__getitem__(row)
        return {"x": x.float(), "y": y}

def training_step(model, batch):
    return {"loss": nn.functional.cross_entropy(model(batch["x"]), batch["y"])}

def validation_step(model, batch):
    return {"loss": torch.rand(())}
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    for name, text in {"own": OWN, "padded": PADDED, "steps": STEPS}.items():
        (folder / f"{name}.py").write_text(text, "utf-8")
    return folder


def test_strips_of_digits_are_read_and_gone_on_with(tmp_path: Path) -> None:
    config = RunConfig(
        model="crnn", model_args={"hidden": 8}, data="digit_strips", data_args={"samples": 40},
        lr=0.01, batch_size=16, steps=2, loss_args={"zero_infinity": True},
    )  # fmt: skip
    first = run(config, tmp_path / "runs", "first")
    second = go_on(first, "last", "second", steps=5, lr=0.005)
    text = assert_script_repeats(second, tmp_path / "out")
    assert "loss_fn = TranscriptLoss(zero_infinity=True)" in text and "collate_fn=pad" in text


OWN_DATA = {
    "transcription": ("own:Reader", "own:Words", {"task": "transcription"}),
    "drawn at random": ("own:Net", "own:Noisy", {"validation": 0.0, "balance": True}),
    "a loader with a generator": ("own:Net", "own:loader", {}),
    "padded by its own function": ("padded:Last", "padded:Parity", {"stratify": True}),
    "steps of its own": ("own:Net", "steps:Dicts", {"early_stopping": 1}),
}


@pytest.mark.parametrize(("model", "data", "settings"), OWN_DATA.values(), ids=OWN_DATA)
def test_own_data(
    model: str, data: str, settings: dict[str, object], own: Path, tmp_path: Path
) -> None:
    places = [f"file:{own / one.replace(':', '.py:')}" for one in (model, data)]
    content = {"model": places[0], "data": places[1], "epochs": 3, "batch_size": 16, **settings}
    assert_script_repeats(run(RunConfig.from_dict(content), tmp_path / "runs"), tmp_path / "out")


def test_files_of_ones_own_are_found_and_names_do_not_clash(own: Path, tmp_path: Path) -> None:
    (own / "factor.txt").write_text("0.5")
    (own / "train.py").write_text(OWN + "model = Net()\n", "utf-8")
    here = own / "train.py"
    config = RunConfig(model=f"file:{here}:model", data=f"file:{here}:FromFile", steps=6)
    path, out = run(config, tmp_path / "runs"), tmp_path / "out"
    exported = export(inspector.open_run(path), "script", out)
    assert exported.notes[0] == "Run it in its folder with: python train_again.py."
    assert "It reads your data through your own Python, from where that finds it." in exported.notes
    (out / "factor.txt").write_text("0.5")
    assert_same(execute(out, "train_again.py"), weights(path))
