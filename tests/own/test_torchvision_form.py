"""A data set of torchvision in the form: typed, its arguments as fields, refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.app.in_process import draft, open_app, read, turn_to


@pytest.fixture
def form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setenv("TORCH_INSPECTOR_DATA", str(tmp_path / "kept"))
    return turn_to(open_app(tmp_path), "start")


def choose(app: AppTest, data: str) -> None:
    """Typed, since not every set of torchvision is in the list."""
    box = app.selectbox(key="data/0")
    box.options.append(data)
    box.set_value(data).run()
    assert not app.exception


def test_arguments_become_fields(form: AppTest) -> None:
    choose(form, "torchvision:EMNIST")
    key = "torchvision:EMNIST/args/0"
    assert form.selectbox(key=f"{key}/split").options[:2] == ["byclass", "bymerge"]
    assert draft(form).data_args == {"split": form.selectbox(key=f"{key}/split").value}
    form.selectbox(key=f"{key}/split").set_value("letters").run()
    form.toggle(key=f"{key}/train").set_value(False).run()
    form.number_input(key=f"{key}/limit").set_value(200).run()
    assert draft(form).data == "torchvision:EMNIST"
    assert draft(form).data_args == {"split": "letters", "train": False, "limit": 200}
    form.selectbox(key="data/0").set_value("digits").run()
    assert (draft(form).data, draft(form).data_args) == ("digits", {})


def test_what_is_no_set_of_classes_is_refused_where_it_is_typed(form: AppTest) -> None:
    choose(form, "torchvision:VOCSegmentation")
    assert "its targets are masks" in read(form, "error")
    choose(form, "torchvision:NoSuch")
    assert "has no class named 'NoSuch'" in read(form, "error")
    assert draft(form).data == "digits"
