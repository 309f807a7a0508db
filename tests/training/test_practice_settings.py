"""Initialisation, losses and optimizers with their arguments, against PyTorch's own."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F

from inspector.commands import Controls
from inspector.config import OPTIMIZER_TITLES, RunConfig
from inspector.errors import CommandError, ConfigError, InspectorError, ModelError
from inspector.store.reader import Run
from inspector.training import runner
from inspector.training.dry_run import dry_run
from inspector.training.initialisation import initialise
from inspector.training.losses import build_loss
from inspector.training.optimizers import CLASSES
from inspector.training.schedules import preview
from inspector.training.task import build_task

# ---------------------------------------------------------------- optimizers

ARGUMENTS: dict[str, dict[str, Any]] = {
    "sgd": {"nesterov": True},
    "adam": {"amsgrad": True, "betas": [0.8, 0.9], "eps": 1e-6},
    "adamw": {"foreach": False},
    "rmsprop": {"alpha": 0.9, "centered": True},
    "adagrad": {"lr_decay": 0.1, "initial_accumulator_value": 0.1},
    "adadelta": {"rho": 0.8},
    "adamax": {"betas": [0.8, 0.9]},
    "nadam": {"momentum_decay": 0.01},
    "radam": {"decoupled_weight_decay": True},
    "asgd": {"lambd": 0.01, "t0": 1.0},
    "rprop": {"etas": [0.6, 1.1]},
    "adafactor": {"beta2_decay": -0.7},
    "lbfgs": {"max_iter": 4, "line_search_fn": "strong_wolfe"},
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_optimizer_trains_as_in_a_plain_loop(name: str, tmp_path: Path) -> None:
    momentum: dict[str, Any] = {"momentum": 0.9} if name in ("sgd", "rmsprop") else {}
    decay: dict[str, Any] = {} if name in ("rprop", "lbfgs") else {"weight_decay": 0.01}
    config = RunConfig(
        optimizer=name, lr=0.02, steps=3, validation=0.0, optimizer_args=ARGUMENTS[name],
        **momentum, **decay,
    )  # fmt: skip
    run_name = runner.start(config, tmp_path)
    assert runner.join(60)
    run = Run(tmp_path / run_name)
    assert run.status == "finished", [stored.event.text for stored in run.events()]
    weights = torch.load(run.path / "blobs" / "last.pt")["model"]

    task = build_task(config)
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in ARGUMENTS[name].items()}
    cls = getattr(optim, OPTIMIZER_TITLES[name])
    optimizer = cls(task.model.parameters(), lr=0.02, **momentum, **decay, **arguments)
    first: list[float] = []
    for _, (inputs, targets) in zip(range(3), task.train_loader, strict=False):
        losses: list[float] = []

        def closure(x: Tensor = inputs, y: Tensor = targets, told: Any = losses) -> Tensor:
            optimizer.zero_grad()
            loss = task.loss_fn(task.model(x), y)  # type: ignore[misc]
            told.append(loss.item())
            loss.backward()
            return loss  # type: ignore[no-any-return]

        if name == "lbfgs":
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        first.append(losses[0])
    expected = task.model.state_dict()
    assert [key for key in weights if not torch.equal(weights[key], expected[key])] == []
    assert run.series("loss").values.tolist() == pytest.approx(first)


def test_every_optimizer_of_torch_is_selectable() -> None:
    there = {
        value for _, value in inspect.getmembers(optim)
        if inspect.isclass(value) and issubclass(value, optim.Optimizer)
    }  # fmt: skip
    assert there - {optim.Optimizer} == set(CLASSES.values())


def test_muon_and_sparse_adam_train_what_they_can(tmp_path: Path) -> None:
    source = tmp_path / "own.py"
    source.write_text(
        "import torch\nfrom torch import nn\n"
        "def matrices():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))\n"
        "class Bag(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.table = nn.Embedding(17, 10, sparse=True)\n"
        "    def forward(self, x):\n"
        "        return self.table((x * 16).long().flatten(1)).mean(1)\n"
    )
    for name, optimizer in (("matrices", "muon"), ("Bag", "sparse_adam")):
        config = RunConfig(
            model=f"file:{source}:{name}", optimizer=optimizer, lr=0.1, steps=40, validation=0.0
        )
        run_name = runner.start(config, tmp_path)
        assert runner.join(60)
        loss = Run(tmp_path / run_name).series("loss").values
        assert loss[-5:].mean() < 0.97 * loss[:5].mean()
    with pytest.raises(ModelError, match=r"Muon trains matrices only, but hidden\.0\.0\.bias has"):
        build_task(RunConfig(optimizer="muon"))
    with pytest.raises(ModelError, match="SparseAdam trains embeddings with sparse=True only"):
        build_task(RunConfig(optimizer="sparse_adam"))


def test_groups_have_settings_of_their_own() -> None:
    groups = [{"modules": ["head"], "lr": 0.01, "weight_decay": 0.5}]
    task = build_task(RunConfig(optimizer="adamw", lr=0.1, param_groups=groups))
    rest, head = task.optimizer.param_groups
    assert (rest["lr"], rest["weight_decay"]) == (0.1, 0.0)
    assert (head["lr"], head["weight_decay"]) == (0.01, 0.5)
    assert head["params"] == [task.model.head.weight, task.model.head.bias]  # type: ignore[union-attr]
    count = sum(len(group["params"]) for group in task.optimizer.param_groups)
    assert count == len(list(task.model.parameters()))


REFUSED: list[tuple[dict[str, Any], type[InspectorError], str]] = [
    ({"optimizer_args": {"betas": [0.9, 0.9]}}, ConfigError, "SGD has no argument 'betas'"),
    ({"optimizer_args": {"nesterov": 1}}, ConfigError, "nesterov must be true or false, but got 1"),
    ({"optimizer_args": {"nesterov": True}}, ConfigError, "SGD does not take these settings: Nest"),
    ({"optimizer_args": {"lr": 1.0}}, ConfigError, "SGD has no argument 'lr' to set in optimizer_"),
    ({"optimizer_args": {"differentiable": True}}, ConfigError, "differentiable cannot be used"),
    ({"optimizer": "rprop", "weight_decay": 0.1}, ConfigError, "Rprop has no weight decay"),
    ({"optimizer": "adam", "momentum": 0.5, "optimizer_args": {"betas": [0.1, 0.2]}}, ConfigError,
     "momentum is Adam's first beta"),
    ({"param_groups": [{"lr": 1.0}]}, ConfigError, "must be a dict with 'modules'"),
    ({"param_groups": [{"modules": ["tail"]}]}, ConfigError, "There is no module 'tail'; at its"),
    ({"param_groups": [{"modules": ["hidden"]}, {"modules": ["hidden.0"]}]}, ConfigError,
     r"Parameter hidden\.0\.0\.bias is in two groups of param_groups, hidden and hidden\.0"),
    ({"param_groups": [{"modules": ["head"], "lr": -1.0}]}, ConfigError, "lr must be 0 or greater"),
    ({"param_groups": [{"modules": ["head"], "beta": 1.0}]}, ConfigError, "SGD has no argument"),
    ({"optimizer": "lbfgs", "param_groups": [{"modules": ["head"]}]}, ConfigError, "LBFGS has one"),
    ({"optimizer": "lbfgs", "precision": "fp16"}, ConfigError, "GradScaler cannot follow"),
    ({"loss_args": {"label_smoothing": 2}}, ConfigError, "label_smoothing must be from 0 to 1"),
    ({"loss_args": {"beta": 1.0}}, ConfigError, "has no argument 'beta' to set in loss_args"),
    ({"loss_args": {"reduction": "sum"}}, ConfigError, "has no argument 'reduction'"),
    ({"loss_args": {"weight": [1.0, 2.0]}}, ConfigError, "one number for each of 10 classes, but"),
    ({"loss_args": {"weight": "all"}}, ConfigError, "weight must be a list of numbers or nothing"),
    ({"loss_args": {"ignore_index": 0.5}}, ConfigError, "ignore_index must be a whole number"),
    ({"init": {"Linear": "he"}}, ConfigError, r"init\.Linear must be one of default, xavier_unif"),
    ({"init": {"Conv2d": "orthogonal"}}, ConfigError, "no such module with parameters is in the"),
    ({"init": {"Linear": {"name": "orthogonal", "std": 1.0}}}, ConfigError, "no argument 'std'"),
    ({"init": {"Linear": {"name": "constant", "val": "big"}}}, ConfigError, "must be a number"),
    ({"early_stopping": 3, "validation": 0.0}, ConfigError, "no samples are held out"),
    ({"controls": Controls(schedule={"name": "reduce_on_plateau"}), "validation": 0.0},
     ConfigError, "reduce_on_plateau looks at the validation loss"),
    ({"controls": Controls(frozen=("tail",))}, ConfigError, "There is no module 'tail'"),
    ({"controls": Controls(frozen=("hidden", "head"))}, ConfigError, "leave nothing to train"),
    ({"controls": Controls(eval_modules=("Dropout",))}, ConfigError, "module of type 'Dropout'"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "error", "message"), REFUSED)
def test_what_cannot_work_is_refused_in_a_sentence(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build_task(RunConfig(**settings))


# ---------------------------------------------------------------- losses

LOSSES: list[tuple[str, str, dict[str, Any], Callable[[Tensor, Tensor], Tensor]]] = [
    ("cross_entropy", "classification", {"label_smoothing": 0.1, "weight": [1.0, 2.0, 0.5]},
     lambda x, y: F.cross_entropy(x, y, torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1)),
    ("cross_entropy", "classification", {"ignore_index": 1},
     lambda x, y: F.cross_entropy(x, y, ignore_index=1)),
    ("nll", "classification", {"weight": [1.0, 2.0, 0.5]},
     lambda x, y: F.nll_loss(x, y, torch.tensor([1.0, 2.0, 0.5]))),
    ("bce_with_logits", "multi_label", {"pos_weight": [3.0, 1.0, 1.0]},
     lambda x, y: F.binary_cross_entropy_with_logits(
         x, y, pos_weight=torch.tensor([3.0, 1.0, 1.0]))),
    ("smooth_l1", "regression", {"beta": 0.3}, lambda x, y: F.smooth_l1_loss(x, y, beta=0.3)),
    ("mse", "regression", {}, F.mse_loss),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "arguments", "expected"), LOSSES)
def test_losses_take_their_arguments(name: Any, kind: Any, arguments: Any, expected: Any) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(6, 3), torch.tensor([0, 1, 2, 1, 0, 2])
    targets = y if kind == "classification" else F.one_hot(y, 3).float()
    loss = build_loss(name, kind, arguments, outputs=3)
    assert torch.equal(loss(x, targets), expected(x, targets))


# ---------------------------------------------------------------- initialisation


def test_first_weights_by_type() -> None:
    init = {"Linear": "kaiming_normal"}
    task = build_task(RunConfig(init=init, model_args={"hidden": 512}))
    plain = build_task(RunConfig(model_args={"hidden": 512}))
    linears = [m for m in task.model.modules() if isinstance(m, nn.Linear)]
    for module in linears:
        assert module.weight.std().item() == pytest.approx(math.sqrt(2 / module.in_features), 0.05)
        assert not module.bias.any()
    assert not torch.equal(linears[0].weight, plain.model.hidden[0][0].weight)  # type: ignore[index, union-attr]
    assert task.notes == ("First weights: Linear × 3 by kaiming_normal.",)
    again = build_task(RunConfig(init=init, model_args={"hidden": 512})).model.state_dict()
    assert all(torch.equal(again[name], t) for name, t in task.model.state_dict().items())


def test_every_method_on_every_kind_of_module() -> None:
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 8, 3),
            "norm": nn.BatchNorm2d(8),
            "rnn": nn.LSTM(8, 16),
            "table": nn.Embedding(10, 8, padding_idx=2),
            "attention": nn.MultiheadAttention(8, 2),
        }
    )
    initialise(model, {
        "Conv2d": {"name": "xavier_uniform", "gain": 2.0},
        "BatchNorm2d": {"name": "constant", "val": 0.5, "bias": 0.1},
        "LSTM": "orthogonal",
        "Embedding": {"name": "trunc_normal", "std": 0.3},
        "MultiheadAttention": "zeros",
        "Linear": "xavier_normal",
    })  # fmt: skip
    conv, norm, rnn, table, attention = (cast(Any, module) for module in model.values())
    assert conv.weight.abs().max().item() == pytest.approx(2 * math.sqrt(6 / (27 + 72)), rel=0.05)
    assert (norm.weight == 0.5).all() and torch.allclose(norm.bias, torch.tensor(0.1))
    square = rnn.weight_hh_l0.T @ rnn.weight_hh_l0
    assert torch.allclose(square, torch.eye(16), atol=1e-5)
    assert not rnn.bias_ih_l0.any()
    assert not table.weight[2].any() and 0.1 < table.weight[3:].std().item() < 0.5
    assert not attention.in_proj_weight.any()
    assert attention.out_proj.weight.any()  # a subclass of Linear
    with pytest.raises(
        ConfigError, match="xavier_normal draws matrices, but weight of BatchNorm2d"
    ):
        initialise(model, {"BatchNorm2d": "xavier_normal"})


def test_lazy_modules_are_initialised_at_their_first_forward(tmp_path: Path) -> None:
    source = tmp_path / "own.py"
    source.write_text(
        "from torch import nn\n"
        "def lazy():\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))\n"
    )
    config = RunConfig(
        model=f"file:{source}:lazy", init={"Linear": {"name": "constant", "val": 0.25}}
    )
    task = build_task(config)
    dry_run(task)
    assert (task.model[1].weight == 0.25).all() and not task.model[1].bias.any()  # type: ignore[index]


def test_weights_from_a_file_win(tmp_path: Path) -> None:
    weights = build_task(RunConfig(seed=9)).model.state_dict()
    torch.save(weights, tmp_path / "w.pt")
    task = build_task(RunConfig(init={"Linear": "zeros"}, weights=str(tmp_path / "w.pt")))
    loaded = task.model.state_dict()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


# ---------------------------------------------------------------- schedules


@pytest.mark.parametrize("name", ["step", "multi_step", "exponential"])
def test_schedules_by_epoch_change_at_its_end(name: str) -> None:
    rates = preview({"name": name}, 1.0, 12, 3)
    assert [len({*rates[first : first + 3]}) for first in (0, 3, 6, 9)] == [1, 1, 1, 1]
    assert rates[-1] < rates[0]


def test_a_schedule_stays_at_its_end() -> None:
    rates = preview({"name": "cosine", "T_max": 5, "eta_min": 0.1}, 1.0, 12, 3)
    assert rates[5:] == pytest.approx([0.1] * 7)
    assert preview({"name": "one_cycle", "total_steps": 4}, 1.0, 6, 3)[4:] == pytest.approx(
        [4e-6, 4e-6]
    )


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"name": "cos"}, "schedule must be a dict with a name, one of constant, step,"),
        ({"name": "step", "T_max": 3}, "Schedule step has no argument 'T_max'; choose from step_s"),
        (
            {"name": "step", "gamma": 0},
            "gamma of schedule step must be a number above 0, but got 0",
        ),
        ({"name": "multi_step", "milestones": [4, 2]}, "must be a list of rising whole numbers"),
        ({"name": "reduce_on_plateau", "unit": "step"}, "reduce_on_plateau goes by epochs"),
    ],
)
def test_schedules_refuse_in_a_sentence(schedule: dict[str, Any], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        Controls().with_value("schedule", schedule)
