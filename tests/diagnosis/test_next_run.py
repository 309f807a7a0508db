"""Remedies that need a run of their own: offered, prepared, trained, and judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from inspector.config import RunConfig
from inspector.diagnosis.finding import Evidence, Finding, Remedy
from inspector.errors import ConfigError
from inspector.store.reader import open_run
from inspector.training import runner
from inspector.training.replacing import replace_modules
from inspector.views.actions import actions
from inspector.views.answers import answer


def finding(code: str, value: float = 1e-6, **more: Any) -> Finding:
    evidence = Evidence(statistic="size", value=value, threshold=1e-3, side="below")
    return Finding(code=code, level="warning", title="So.", confidence=0.9,
                   evidence=(evidence,), **more)  # fmt: skip


def offered(code: str, config: dict[str, Any], types: tuple[str, ...] = (), **more: Any) -> Any:
    modules = [{"path": f"net.{at}", "type": name} for at, name in enumerate(types)]
    found = actions(finding(code, **more), config, modules, live=False)
    return {action.label: action.settings for action in found if action.needs_new_run}


def test_saturating_modules_are_offered_a_relu_and_only_those_that_are_there() -> None:
    made = offered("vanishing_gradient", {"model": "mlp"}, ("Linear", "Sigmoid", "Linear"))
    ((label, settings),) = made.items()
    assert label == "Next run: Sigmoid replaced by ReLU, initialised by He"
    assert settings["init"] == {"Linear": "kaiming_normal"}
    assert settings["replace"] == {"Sigmoid": "ReLU"}
    assert settings["follows"]["code"] == "vanishing_gradient"
    assert offered("vanishing_gradient", {"model": "mlp"}, ("Linear",)) == {}


def called(*rows: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"module": module, "function": function} for module, function in rows]


@pytest.mark.parametrize(
    ("code", "modules", "rows", "replaced"),
    [
        ("vanishing_gradient", {"fc1": "Linear"}, called(("fc1", "sigmoid")),
         {"sigmoid()": "ReLU"}),
        ("saturated_activation", {"a.fc": "Linear", "a.act": "Tanh"}, called(("a.fc", "tanh")),
         {"Tanh": "ReLU"}),
        ("dead_relu", {"net.0": "Linear", "act": "ReLU"}, called(("net.0", "relu")),
         {"ReLU": "LeakyReLU"}),
        ("dead_relu", {"net.0": "Linear", "net.1": "ReLU", "fc": "Linear"},
         called(("net.0", "relu"), ("fc", "relu")), {"relu()": "LeakyReLU"}),
        ("vanishing_gradient", {"rnn": "LSTM", "fc": "Linear"}, called(("rnn", "tanh")), None),
    ],
)  # fmt: skip
def test_an_activation_called_as_a_function_is_offered_as_one(
    code: str, modules: dict[str, str], rows: list[dict[str, Any]], replaced: dict[str, Any] | None
) -> None:
    paths = [{"path": path, "type": name} for path, name in modules.items()]
    found = actions(finding(code), {"model": "mlp"}, paths, rows, live=False)
    given = [action.settings["replace"] for action in found if "replace" in action.settings]
    assert given == ([] if replaced is None else [replaced])


def test_earlier_replacements_are_kept() -> None:
    config = {"model": "mlp", "replace": {"Tanh": "GELU"}}
    ((_, settings),) = offered("dead_relu", config, ("ReLU",)).items()
    assert settings["replace"] == {"Tanh": "GELU", "ReLU": "LeakyReLU"}


def test_inputs_are_normalised_once() -> None:
    assert "Next run: normalise the inputs" in offered("unnormalized_input", {"model": "mlp"})
    assert offered("unnormalized_input", {"model": "mlp", "normalize": True}) == {}


def test_a_control_of_an_ended_run_becomes_a_setting_of_the_next() -> None:
    remedies = (
        Remedy(text="Set the learning rate to 0.01.", control="lr", value=0.01),
        Remedy(text="Clip.", control="clip", value="norm"),
    )
    made = list(offered("lr_too_high", {"lr": 1.0, "controls": {}}, remedies=remedies).values())
    assert made[0]["lr"] == 0.01
    assert made[1]["controls"] == {"clip": "norm"}


def test_a_loop_of_ones_own_cannot_be_started_by_the_app() -> None:
    assert offered("unnormalized_input", {}) == {}


def test_modules_are_replaced_by_type_and_by_path_and_shared_ones_stay_shared() -> None:
    shared = nn.Sigmoid()
    model = nn.Sequential(nn.Linear(2, 2), shared, nn.Sequential(shared, nn.Tanh()), nn.Softmax(1))
    assert replace_modules(model, {"Sigmoid": "ReLU", "3": "Identity"}) == ["1", "2.0", "3"]
    assert isinstance(model[1], nn.ReLU)
    assert model[1] is model[2][0]
    assert isinstance(model[2][1], nn.Tanh)
    assert isinstance(model[3], nn.Identity)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"Sigmoid": "ReLU"}, "this model has Linear, Sequential"),
        ({"Linear": "Linear"}, "without arguments"),
        ({"Linear": "Nothing"}, "a class of torch.nn"),
    ],
)
def test_what_cannot_be_replaced_is_said(wanted: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace_modules(nn.Sequential(nn.Linear(2, 2)), wanted)


@pytest.mark.parametrize("functional", [False, True])
def test_the_next_run_trains_with_other_activations_and_says_what_it_answers(
    tmp_path: Path, functional: bool
) -> None:
    """A model of one's own, whose activations are modules or functions."""
    source = tmp_path / "mine.py"
    source.write_text(
        "from torch import nn\n"
        "class Deep(nn.Module):\n"
        "    def __init__(self, in_features=64, num_classes=10):\n"
        "        super().__init__()\n"
        "        parts = [nn.Flatten(), nn.Linear(in_features, 32), nn.Sigmoid()]\n"
        "        for _ in range(8):\n"
        "            parts += [nn.Linear(32, 32), nn.Sigmoid()]\n"
        "        self.net = nn.Sequential(*parts, nn.Linear(32, num_classes))\n"
        "    def forward(self, x):\n"
        "        return self.net(x)\n"
        if not functional
        else "import torch\n"
        "from torch import nn\n"
        "class Deep(nn.Module):\n"
        "    def __init__(self, in_features=64, num_classes=10):\n"
        "        super().__init__()\n"
        "        sizes = [in_features] + [32] * 9\n"
        "        self.parts = nn.ModuleList([nn.Linear(a, 32) for a in sizes])\n"
        "        self.last = nn.Linear(32, num_classes)\n"
        "    def forward(self, x):\n"
        "        x = x.flatten(1)\n"
        "        for part in self.parts:\n"
        "            x = torch.sigmoid(part(x))\n"
        "        return self.last(x)\n"
    )
    common = {"model": f"file:{source}:Deep", "steps": 70, "lr": 0.05, "torch_threads": 1}
    first = runner.start(RunConfig.from_dict(common), tmp_path / "runs")
    assert runner.join(120)
    with open_run(first, tmp_path / "runs") as run:
        before = next(one for one in run.findings() if one.code == "vanishing_gradient")
        modules = (run.document("modules") or {})["modules"]
        rows = (run.document("structure") or {})["activations"]
        chosen = next(
            action
            for action in actions(before, run.config, modules, rows, live=False)
            if "replace" in action.settings
        )
        settings = {**run.config, **chosen.settings}
    settings["follows"] = {"run": first, **settings["follows"]}
    second = runner.start(RunConfig.from_dict(settings), tmp_path / "runs")
    assert runner.join(120)
    with open_run(second, tmp_path / "runs") as run:
        types = {row["type"] for row in (run.document("modules") or {})["modules"]}
        assert ("ReLU" in types) != functional
        assert "Sigmoid" not in types
        rows = (run.document("structure") or {})["activations"]
        assert {row["function"] for row in rows} == {"relu"}
        made = answer(run.config["follows"], run.findings(), 70)
    assert made is not None
    assert made.run == first
    assert made.verdict == "recovered"
    old = "sigmoid()" if functional else "Sigmoid"
    assert made.changed == f"{old} replaced by ReLU, initialised by He"
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("after", "steps", "verdict"),
    [([], 60, "recovered"), ([], 20, ""), ([1e-4], 60, "better"), ([1e-6], 60, "unchanged"),
     ([1e-8], 60, "worse")],
)  # fmt: skip
def test_the_verdict_compares_the_same_statistic(
    after: list[float], steps: int, verdict: str
) -> None:
    follows = {"run": "a", "code": "vanishing_gradient", "statistic": "size", "value": 1e-6,
               "threshold": 1e-3, "text": "x"}  # fmt: skip
    found = [finding("vanishing_gradient", value) for value in after]
    made = answer(follows, found, steps)
    assert made is not None
    assert made.verdict == verdict


def test_a_run_that_answers_nothing_has_no_verdict() -> None:
    assert answer({}, [], 100) is None
