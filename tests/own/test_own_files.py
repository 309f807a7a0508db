"""Tables, arrays, images and texts: read rightly, and faults named with path and row."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from inspector.config import RunConfig
from inspector.errors import ConfigError, DataError, InspectorError
from inspector.training.own import files, folders
from inspector.training.own.arrays import load_arrays
from inspector.training.own.folders import load_folder
from inspector.training.own.sources import load_data
from inspector.training.own.tables import load_table
from inspector.training.own.text import load_text

ROWS = "x,y,colour,kind\n1,2.5,red,b\n3,4,blue,a\n5,6,red,a\n"


def table(tmp_path: Path, text: str, **args: Any) -> Any:
    path = tmp_path / "t.csv"
    path.write_text(text, "utf-8")
    return load_table(str(path), "csv", args.pop("task", "auto"), **args)


def test_numbers_are_features_and_text_is_classes(tmp_path: Path) -> None:
    source = table(tmp_path, ROWS)
    assert source.kind == "classification"
    assert source.class_names == ("a", "b")
    assert source.targets.tolist() == [1, 0, 0]
    assert source.inputs.tolist() == [[1.0, 2.5], [3.0, 4.0], [5.0, 6.0]]
    assert source.feature_names == ("x", "y")


def test_text_features_become_columns(tmp_path: Path) -> None:
    source = table(tmp_path, ROWS, target="y", features=["colour", "x"])
    assert source.kind == "regression"
    assert source.feature_names == ("colour=blue", "colour=red", "x")
    assert source.inputs.tolist() == [[0, 1, 1], [1, 0, 3], [0, 1, 5]]


def test_labels_and_several_numbers(tmp_path: Path) -> None:
    text = "x,p,q\n1,0,1\n2,1,1\n"
    labels = table(tmp_path, text, target=["p", "q"], task="multi_label")
    assert (labels.kind, labels.class_names) == ("multi_label", ("p", "q"))
    assert table(tmp_path, text, target=["p", "q"]).targets.shape == (2, 2)


def test_parquet(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [True, False]})
    frame.to_parquet(tmp_path / "t.parquet")
    source = load_table(str(tmp_path / "t.parquet"), "parquet", "auto")
    assert source.class_names == ("False", "True")
    assert source.inputs.tolist() == [[1.0], [2.0]]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1nonsense")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        load_table(str(tmp_path / "broken.parquet"), "parquet", "auto")


def test_empty_fields_are_dropped_when_asked(tmp_path: Path) -> None:
    source = table(tmp_path, "x,y\n1,2.5\n,3\n2,4.5\n", missing="drop")
    assert len(source) == 2
    assert source.notes == ("1 row with empty fields was left out.",)


@pytest.mark.parametrize(
    ("text", "args", "sentence"),
    [
        ("x,y\n1,2\n,3\n", {}, r"t\.csv, line 3, column 'x' is empty \(the only row"),
        ("x,y\n1,2\n,3\n4,\n", {}, r"column 'x' is empty \(2 rows with empty fields\); fill them"),
        (
            "x,y\n1,2\n2,3\nabc,3\n",
            {},
            r"line 4, column 'x': expected a finite number, but got 'abc'",
        ),
        ("x,y\n1,2\ninf,3\n", {}, r"line 3, column 'x': expected a finite number, but got"),
        ("x,y\n1,2\n1e300,3\n", {}, r"line 3, column 'x': expected a finite number"),
        (
            "x,y\n1,0\n1,2\n",
            {"task": "multi_label"},
            r"line 3, column 'y': expected 0 or 1, but got 2",
        ),
        ("x,y\n1,a\n1,a\n", {}, r"two classes or more in column 'y'"),
        ("x,y\n", {}, "Expected (rows|columns)"),
        ("", {}, "empty"),
        ('x,y\n1,2\n"3,4\n5,6\n', {}, "cannot be read as csv"),
        ("a,b\nu,v\n", {}, "Expected columns of numbers .* none; name text columns"),
        ("x\n1\n2\n", {}, "but there are no others; a table needs one column more"),
    ],
)
def test_faults_in_tables_are_named(
    tmp_path: Path, text: str, args: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        table(tmp_path, text, **args)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ({"target": "z"}, "no column 'z' in t.csv; its columns are x, y, colour, kind"),
        ({"target": "x", "features": ["x"]}, "'x' is both feature and target"),
        ({"missing": "mean"}, "missing must be refuse or drop"),
        ({"task": "per_pixel"}, "cannot be used for the task per_pixel"),
    ],
)
def test_wrong_columns(tmp_path: Path, args: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        table(tmp_path, ROWS, **args)


@pytest.mark.parametrize(
    "data",
    ["csv:http://127.0.0.1:9/t.csv", "npz:file:///etc/x.npz", "text:s3://b/t", "folder:http://x/"],
)
def test_addresses_are_refused(data: str) -> None:
    with pytest.raises(DataError, match=r"address|subfolder"):
        load_data(RunConfig(data=data), None, "auto")


def test_devices_and_oversized_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="check the path"):
        load_text("/dev/zero")
    monkeypatch.setattr(files, "LARGEST_TABLE", 10)
    with pytest.raises(DataError, match="at most 10 bytes"):
        files.local_file(str(_file(tmp_path / "t.csv", ROWS)), "a table", largest=10)


def test_unknown_arguments_are_refused(tmp_path: Path) -> None:
    path = _file(tmp_path / "t.csv", ROWS)
    for args, sentence in (({"targt": "x"}, "no argument 'targt'; choose from target"),
                           ({"features": [1]}, "features .* a list of names")):  # fmt: skip
        with pytest.raises(ConfigError, match=sentence):
            load_data(RunConfig(data=f"csv:{path}", data_args=args), None, "auto")


def _file(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


# ---------------------------------------------------------------------------- arrays


def arrays(tmp_path: Path, task: str = "auto", **content: Any) -> Any:
    np.savez(tmp_path / "a.npz", **content)
    return load_arrays(str(tmp_path / "a.npz"), task)


def test_arrays_are_taken_for_what_they_look_like(tmp_path: Path) -> None:
    x, y = np.zeros((6, 5)), np.array([0, 1, 2, 0, 1, 2])
    assert arrays(tmp_path, x=x, y=y).kind == "classification"
    assert arrays(tmp_path, x=x, y=y / 2).targets.shape == (6, 1)
    images = np.zeros((6, 8, 9, 3), np.uint8)
    assert arrays(tmp_path, images=images, labels=y).shape == (3, 8, 9)
    assert arrays(tmp_path, x=images, y=np.zeros((6, 8, 9), int)).kind == "per_pixel"
    tokens = np.ones((6, 4), int)
    assert arrays(tmp_path, x=tokens, y=tokens).kind == "sequence"
    assert arrays(tmp_path, x=x, y=np.eye(6, dtype=int)).kind == "multi_label"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"x": np.zeros((3, 2)), "y": np.array([0, -1, 1])}, r"row 1: expected classes from 0 on"),
        ({"x": np.array([[0.0], [np.nan]]), "y": np.zeros(2)}, r"'x' in .*a\.npz, row 1: .* nan"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(4)}, "'x' has 3 and 'y' has 4"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0)}, "one or more"),
        ({"x": np.zeros((2, 2)), "y": np.array([0, 10**9])}, "row 1: label 1000000000 for 2"),
        ({"x": np.array([{}, {}]), "y": np.zeros(2)}, "Python objects, which only pickle"),
    ],
)
def test_faults_in_arrays_are_named(tmp_path: Path, content: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        arrays(tmp_path, **content)


def test_a_missing_array_names_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"one of a \(3,\)"):
        arrays(tmp_path, a=np.zeros(3))


def test_bombs_and_lies_are_refused_by_their_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**13,)}
    )
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(DataError, match=r"claims shape \(10000000000000,\) of float64, but has"):
        load_arrays(str(tmp_path / "lie.npz"), "auto")
    monkeypatch.setattr("inspector.training.own.arrays.MEMORY", 10_000_000)
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((1000, 10_000)), y=np.zeros(1000))
    assert (tmp_path / "bomb.npz").stat().st_size < 100_000
    with pytest.raises(DataError, match="unpacks to 80,"):
        load_arrays(str(tmp_path / "bomb.npz"), "auto")


# ---------------------------------------------------------------------------- images


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for label, name in enumerate(("cat", "dog")):
        (root / name / "deep").mkdir(parents=True)
        for place in range(3):
            colour = (200 * label, 10 * place, 0)
            Image.new("RGB", (40, 30), colour).save(root / name / "deep" / f"{place}.png")
    return root


def test_images_are_resized_and_labelled_by_folder(pictures: Path) -> None:
    source = load_folder(str(pictures), size=16)
    assert source.class_names == ("cat", "dog")
    assert source.inputs.shape == (6, 3, 16, 16)
    assert source.inputs[4, :, 8, 8].tolist() == [200, 10, 0]
    assert source.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert load_folder(str(pictures), size=16, grey=True).shape == (1, 16, 16)


def test_links_are_not_followed(pictures: Path, tmp_path: Path) -> None:
    Image.new("RGB", (5, 5)).save(tmp_path / "secret.png")
    (pictures / "cat" / "loop").symlink_to(pictures)
    (pictures / "cat" / "secret.png").symlink_to(tmp_path / "secret.png")
    (pictures / "zebra").symlink_to(tmp_path)
    source = load_folder(str(pictures), size=8)
    assert len(source) == 6
    assert source.notes == ("3 links were not followed.",)


def test_damaged_images_are_named(pictures: Path) -> None:
    whole = (pictures / "cat" / "deep" / "0.png").read_bytes()
    (pictures / "cat" / "torn.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "dog" / "none.jpg").write_bytes(b"")
    (pictures / "dog" / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    with pytest.raises(DataError, match=r"3 of 9 images .*torn\.png .*none\.jpg .*script\.png"):
        load_folder(str(pictures))


def test_huge_images_are_not_unpacked(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_MOST_PIXELS", 1000)
    with pytest.raises(DataError, match=r"0\.png \(40 × 30 pixels are too many\)"):
        load_folder(str(pictures))


@pytest.mark.parametrize("empty", [("bird",), ()])
def test_empty_folders(pictures: Path, tmp_path: Path, empty: tuple[str, ...]) -> None:
    root = pictures if empty else tmp_path / "nothing"
    (root / "bird").mkdir(parents=True)
    with pytest.raises(DataError, match=r"Expected (images in .*bird|one subfolder per class)"):
        load_folder(str(root))


# ---------------------------------------------------------------------------- text


def test_the_target_is_the_text_one_character_further(tmp_path: Path) -> None:
    source = load_text(str(_file(tmp_path / "t.txt", "abcabcä" * 4)), length=9)
    letters = source.class_names
    assert letters == ("a", "b", "c", "ä")
    assert "".join(letters[token] for token in source.inputs[1].tolist()) == ("abcabcä" * 4)[9:18]
    assert torch.equal(source.inputs[:, 1:], source.targets[:, :-1])
    assert source.kind == "sequence"


def test_faults_in_texts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Expected 129 characters or more"):
        load_text(str(_file(tmp_path / "short.txt", "abc")))
    (tmp_path / "latin.txt").write_bytes(b"fine\n\xe4 not\n")
    with pytest.raises(DataError, match="line 2 holds byte 0xe4"):
        load_text(str(tmp_path / "latin.txt"))
    with pytest.raises(InspectorError, match="1 or more"):
        load_text(str(tmp_path / "latin.txt"), length=0)
