"""Faults in the model's definition and in the loss."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelled_programs.catalog import faulty
from labelled_programs.variation import Variation


def _linear(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]


@faulty("poor_initialization")
def constant_weights(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes, hidden=v.widths(3))
    if broken:
        value = v.choose(0.0, 0.01, 0.1)
        for module in _linear(model):
            nn.init.constant_(module.weight, value)
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("poor_initialization")
def standard_normal_weights(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes, hidden=[v.choose(48, 64, 96)] * v.choose(2, 3))
    if broken:
        std = v.between(1.0, 3.0)
        for module in _linear(model):
            nn.init.normal_(module.weight, std=std)
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("poor_initialization")
def tiny_weights(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes, hidden=[48] * v.choose(3, 4))
    if broken:
        std = v.between(1e-5, 1e-3)
        for module in _linear(model):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=v.between(0.05, 0.15))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task))


@faulty("poor_initialization")
def huge_convolutions(v: Variation, broken: bool) -> None:
    task = v.digits()
    model = v.convnet(10)
    if broken:
        with torch.no_grad():
            for module in _linear(model)[: v.choose(2, 3)]:
                module.weight.mul_(v.between(15, 40))
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task), steps=120)


@faulty("double_softmax")
def softmax_module_before_cross_entropy(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    if broken:
        model.append(nn.Softmax(dim=1))
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


class _Scores(nn.Module):
    def __init__(self, features: int, classes: int, normalise: bool) -> None:
        super().__init__()
        self.first = nn.Linear(features, 48)
        self.last = nn.Linear(48, classes)
        self.normalise = normalise

    def forward(self, x: Tensor) -> Tensor:
        scores = self.last(F.relu(self.first(x.flatten(1))))
        return F.softmax(scores, dim=-1) if self.normalise else scores


@faulty("double_softmax")
def functional_softmax(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = _Scores(task.features, task.classes, broken)
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("double_softmax")
def sigmoid_before_logits_loss(v: Variation, broken: bool) -> None:
    task = v.sequences(6)
    task.targets = task.targets.float().unsqueeze(1)
    model = v.mlp(12, 1)
    model = nn.Sequential(nn.Flatten(), *model)
    if broken:
        model.append(nn.Sigmoid())
    loss_fn = v.choose(nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits)
    v.fit(model, v.optimizer(model.parameters()), loss_fn, v.loader(task))


@faulty("double_softmax")
def softmax_per_token(v: Variation, broken: bool) -> None:
    """Every position of a sequence is classified; the outputs are reshaped for the loss."""
    length = v.choose(6, 10)
    task = v.sequences(length)
    task.targets = (task.inputs[..., 0] > task.inputs[..., 1]).long()
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
    if broken:
        model.append(nn.Softmax(dim=-1))

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.reshape(-1, 2), targets.reshape(-1))

    v.fit(model, v.optimizer(model.parameters()), loss_fn, v.loader(task))


@faulty("missing_activation")
def activation_forgotten_once(v: Variation, broken: bool) -> None:
    task = v.classification()
    width = v.choose(32, 48, 64)
    model = v.mlp(task.features, task.classes, hidden=[width] * 3)
    if broken:
        places = [i for i, module in enumerate(model) if isinstance(module, nn.ReLU)]
        del model[v.choose(*places)]
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


class _Plain(nn.Module):
    def __init__(self, features: int, classes: int, active: bool, normalise: bool) -> None:
        super().__init__()
        self.first = nn.Linear(features, 64)
        self.norm = nn.BatchNorm1d(64) if normalise else nn.Identity()
        self.second = nn.Linear(64, 64)
        self.last = nn.Linear(64, classes)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x.flatten(1)))
        x = self.second(F.relu(x) if self.active else x)
        return self.last(F.relu(x) if self.active else x)


@faulty("missing_activation")
def linear_all_the_way(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = _Plain(task.features, task.classes, not broken, v.choose(True, False))
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("missing_activation")
def convolutions_in_a_row(v: Variation, broken: bool) -> None:
    task = v.digits()
    model = v.convnet(10)
    if broken:
        del model[v.choose(1, 4)]  # pooling would be a nonlinearity too
        parts = [module for module in model if not isinstance(module, nn.MaxPool2d)]
        channels = [module for module in parts if isinstance(module, nn.Conv2d)][-1].out_channels
        model = nn.Sequential(*parts[:-1], nn.Linear(64 * channels, 10))
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task), steps=100)


@faulty("wrong_loss")
def nll_of_scores(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    if not broken:
        model.append(nn.LogSoftmax(dim=1))
    loss_fn = v.choose(nn.NLLLoss(), F.nll_loss)
    optimizer = v.optimizer(model.parameters(), factor=0.5)
    v.fit(model, optimizer, loss_fn, v.loader(task))


@faulty("wrong_loss")
def nll_of_probabilities(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    model.append(nn.Softmax(dim=1) if broken else nn.LogSoftmax(dim=1))
    v.fit(model, v.optimizer(model.parameters()), nn.NLLLoss(), v.loader(task))


@faulty("wrong_loss")
def class_numbers_regressed(v: Variation, broken: bool) -> None:
    task = v.digits()
    model = nn.Sequential(nn.Flatten(), v.mlp(64, 1 if broken else 10))
    if broken:
        task.targets = task.targets.float().unsqueeze(1)
    loss_fn = v.choose(nn.MSELoss(), nn.SmoothL1Loss()) if broken else v.cross_entropy()
    v.fit(model, v.optimizer(model.parameters(), factor=0.3), loss_fn, v.loader(task))


@faulty("wrong_loss")
def one_hot_regressed(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    if broken:
        task.targets = F.one_hot(task.targets, task.classes).float()
    loss_fn = nn.MSELoss() if broken else v.cross_entropy()
    v.fit(model, v.optimizer(model.parameters()), loss_fn, v.loader(task))


@faulty("wrong_loss")
def cross_entropy_of_one_column(v: Variation, broken: bool) -> None:
    task = v.sequences(4)
    model = nn.Sequential(nn.Flatten(), *v.mlp(8, 1 if broken else 2))
    if broken:
        task.targets = torch.zeros_like(task.targets)
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("wrong_loss")
def negated_loss(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    sign = v.choose(-1.0, -1) if broken else 1.0
    criterion = v.cross_entropy()

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        loss = criterion(outputs, targets)
        return sign * loss if v.functional or not broken else -loss

    v.fit(model, v.optimizer(model.parameters()), loss_fn, v.loader(task))


@faulty("wrong_loss")
def binary_loss_for_amounts(v: Variation, broken: bool) -> None:
    task = v.regression()
    model = v.mlp(task.features, 1)
    loss_fn = nn.BCEWithLogitsLoss() if broken else nn.MSELoss()
    v.fit(model, v.optimizer(model.parameters(), factor=0.3), loss_fn, v.loader(task))
