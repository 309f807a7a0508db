"""Modules whose long paths begin alike can be told apart in the table, which has them whole."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import inspector
from inspector.views.paths import shortened
from tests.app.in_process import open_app, turn_to


def test_a_long_path_is_shortened_from_the_left_and_keeps_its_numbers() -> None:
    path = "pretrained_backbone.layer2.12.blocks.3.projection"
    assert shortened(path, 60) == path
    assert shortened(path, 30) == "p.l2.12.blocks.3.projection"
    assert shortened(path, 22) == "p.l2.12.b.3.projection"
    assert shortened(path, 8) == "…jection"


def test_the_table_of_modules_tells_long_paths_apart(tmp_path: Path) -> None:
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4)) for _ in range(2)))
    name = "a_pretrained_backbone_with_quite_a_long__name"
    model = nn.Sequential()
    model.add_module(name, blocks)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=tmp_path, name="deep"):
        model(torch.randn(3, 4)).square().mean().backward()
        optimizer.step()
    app = turn_to(open_app(tmp_path, run="deep"), "modules")
    (table,) = app.dataframe
    assert list(table.proto.column_order)[-1] == "whole"
    assert list(table.value["path"]) == [
        "(model)",
        name,
        f"{name}.0",
        "a.0.0",
        f"{name}.1",
        "a.1.0",
    ]
    assert table.value["whole"].iloc[3] == f"{name}.0.0"
