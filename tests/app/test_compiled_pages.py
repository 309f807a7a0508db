"""Pages of a compiled run say why there is nothing to see inside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from inspector.config import RunConfig
from inspector.training import runner
from tests.app.test_pages import on_page, serving


@pytest.fixture
def app(tmp_path: Path) -> Iterator[AppTest]:
    runner.start(RunConfig(compile="eager", steps=6, torch_threads=1), tmp_path, name="good")
    assert runner.join(120)
    yield from serving(tmp_path)


def said(app: AppTest) -> str:
    return "\n".join(str(info.value).replace("\\", "") for info in app.info)


def test_activations_name_the_reason_and_gradients_are_shown(app: AppTest) -> None:
    on_page(app, "activations")
    assert "Outputs of modules are not seen. Compiled code runs without module hooks." in said(app)
    assert "a built-in run with compile off" in said(app)
    on_page(app, "gradients")
    assert "not seen" not in said(app)
