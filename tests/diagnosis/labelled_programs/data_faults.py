"""Faults in inputs, labels and their order."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from labelled_programs.catalog import faulty
from labelled_programs.variation import Variation, validation


@faulty("unnormalized_input")
def pixels_up_to_255(v: Variation, broken: bool) -> None:
    task = v.digits()
    if broken:
        task.inputs = task.inputs * 255
    model = v.choose(v.convnet(10), nn.Sequential(nn.Flatten(), v.mlp(64, 10)))
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task), steps=120)


@faulty("unnormalized_input")
def raw_table(v: Variation, broken: bool) -> None:
    """Features in grams, years and millimetres."""
    task = v.regression()
    if broken:
        scales = 10 ** (4 * torch.rand(task.features))
        task.inputs = (task.inputs + v.choose(0, 3)) * scales
    model = v.mlp(task.features, 1)
    v.fit(model, v.optimizer(model.parameters(), factor=0.3), nn.MSELoss(), v.loader(task))


@faulty("unnormalized_input")
def kelvin(v: Variation, broken: bool) -> None:
    """A large offset with a small spread."""
    task = v.classification()
    if broken:
        task.inputs = task.inputs + v.between(80, 400)
    model = v.mlp(task.features, task.classes, activation=v.choose(nn.ReLU, nn.Tanh))
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("label_mismatch")
def shuffled_labels(v: Variation, broken: bool) -> None:
    task = v.classification()
    if broken:
        task.targets = task.targets[torch.randperm(len(task.targets))]
    model = v.mlp(task.features, task.classes, hidden=[32])
    loss_fn = v.cross_entropy()
    measure = validation(model, loss_fn, task) if v.choose(True, False) else None
    v.fit(model, v.optimizer(model.parameters()), loss_fn, v.loader(task), validate=measure)


@faulty("label_mismatch")
def labels_off_by_one_row(v: Variation, broken: bool) -> None:
    task = v.digits()
    if broken:
        task.targets = task.targets.roll(v.choose(1, -1, 5))
    model = nn.Sequential(nn.Flatten(), v.mlp(64, 10, hidden=[32]))
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("label_mismatch")
def column_against_row(v: Variation, broken: bool) -> None:
    """Outputs (N, 1), targets (N): the loss broadcasts to (N, N)."""
    task = v.regression()
    task.targets = task.targets.squeeze(1)
    model = v.mlp(task.features, 1)
    by_hand = v.choose(True, False)

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        outputs = outputs if broken else outputs.squeeze(1)
        if by_hand:
            return ((outputs - targets) ** 2).mean()
        return nn.functional.mse_loss(outputs, targets)

    v.fit(model, v.optimizer(model.parameters()), loss_fn, v.loader(task))


@faulty("label_mismatch")
def targets_out_of_reach(v: Variation, broken: bool) -> None:
    """Targets far outside what the last activation can give."""
    task = v.regression()
    last = v.choose(nn.Sigmoid, nn.Tanh)
    model = v.mlp(task.features, 1)
    if broken:
        model.append(last())
        task.targets = task.targets * v.choose(3, 10) + v.choose(0, 20)
    v.fit(model, v.optimizer(model.parameters()), nn.MSELoss(), v.loader(task))


@faulty("label_mismatch")
def unrelated_amounts(v: Variation, broken: bool) -> None:
    task = v.regression()
    if broken:
        task.targets = task.targets[torch.randperm(len(task.targets))]
    model = v.mlp(task.features, 1, hidden=[32])
    loss_fn = nn.MSELoss()
    v.fit(model, v.optimizer(model.parameters(), factor=0.5), loss_fn, v.loader(task),
          validate=validation(model, loss_fn, task))  # fmt: skip


@faulty("label_mismatch")
def one_class_too_many(v: Variation, broken: bool) -> None:
    """Labels 1 … C for outputs 0 … C−1: the loss raises."""
    task = v.classification()
    if broken:
        task.targets = task.targets + 1
    model = v.mlp(task.features, task.classes)
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


def _thin_out(targets: Tensor, factor: int, rare: list[int]) -> Tensor:
    """Indices that keep one in ``factor`` of the rare classes."""
    keep = torch.ones(len(targets), dtype=torch.bool)
    for number in rare:
        places = (targets == number).nonzero().squeeze(1)
        keep[places[max(len(places) // factor, 1) :]] = False
    return keep.nonzero().squeeze(1)


@faulty("class_imbalance")
def one_rare_class(v: Variation, broken: bool) -> None:
    task = v.digits()
    if broken:
        kept = _thin_out(task.targets, v.choose(20, 40), [v.choose(*range(10))])
        task.inputs, task.targets = task.inputs[kept], task.targets[kept]
    model = nn.Sequential(nn.Flatten(), v.mlp(64, 10))
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("class_imbalance")
def one_dominant_class(v: Variation, broken: bool) -> None:
    task = v.digits()
    if broken:
        most = v.choose(*range(10))
        others = [number for number in range(10) if number != most]
        kept = _thin_out(task.targets, v.choose(15, 25), others)
        again = (task.targets == most).nonzero().squeeze(1).repeat(3)
        kept = torch.cat([kept, again])
        task.inputs, task.targets = task.inputs[kept], task.targets[kept]
    model = v.choose(v.convnet(10), nn.Sequential(nn.Flatten(), v.mlp(64, 10)))
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task), steps=120)


@faulty("class_imbalance")
def rare_positives(v: Variation, broken: bool) -> None:
    count = 900
    inputs = torch.randn(count, v.choose(6, 12))
    score = inputs @ torch.randn(inputs.shape[1])
    quantile = v.between(0.94, 0.97) if broken else 0.5
    task = v._split(inputs, (score > score.quantile(quantile)).float().unsqueeze(1), 1)
    model = v.mlp(inputs.shape[1], 1)
    v.fit(model, v.optimizer(model.parameters()), nn.BCEWithLogitsLoss(), v.loader(task))


@faulty("overfitting")
def few_samples(v: Variation, broken: bool) -> None:
    task = v.digits()
    if broken:
        count = v.choose(40, 60, 80)
        task.inputs, task.targets = task.inputs[:count], task.targets[:count]
    model = nn.Sequential(nn.Flatten(), v.mlp(64, 10, hidden=[128, 128]))
    loss_fn = v.cross_entropy()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    v.fit(model, optimizer, loss_fn, v.loader(task, batch=32), steps=250, accuracy=True,
          validate=validation(model, loss_fn, task))  # fmt: skip


@faulty("overfitting")
def noisy_labels_by_heart(v: Variation, broken: bool) -> None:
    task = v.digits()
    count = v.choose(100, 140)
    if broken:
        task.inputs, task.targets = task.inputs[:count], task.targets[:count].clone()
        wrong = torch.rand(count) < v.between(0.25, 0.4)
        task.targets[wrong] = torch.randint(0, 10, (int(wrong.sum()),))
    model = nn.Sequential(nn.Flatten(), v.mlp(64, 10, hidden=[128, 128]))
    loss_fn = v.cross_entropy()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    v.fit(model, optimizer, loss_fn, v.loader(task, batch=32), steps=250,
          validate=validation(model, loss_fn, task))  # fmt: skip


@faulty("overfitting")
def wide_regression(v: Variation, broken: bool) -> None:
    """More parameters than samples, and noisy targets."""
    task = v.regression()
    if broken:
        task.inputs, task.targets = task.inputs[:50], task.targets[:50]
        task.targets = task.targets + 0.5 * torch.randn_like(task.targets)
    hidden = [128, 128] if broken else [16]
    model = v.mlp(task.features, 1, hidden=hidden)
    loss_fn = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    v.fit(model, optimizer, loss_fn, v.loader(task, batch=25), steps=250,
          validate=validation(model, loss_fn, task))  # fmt: skip


def _sorted(task: object) -> None:
    targets = task.targets if task.targets.dim() == 1 else task.targets[:, 0]  # type: ignore[attr-defined]
    order = targets.argsort(stable=True)
    task.inputs, task.targets = task.inputs[order], task.targets[order]  # type: ignore[attr-defined]


@faulty("no_shuffle")
def sorted_by_class(v: Variation, broken: bool) -> None:
    task = v.classification()
    _sorted(task)
    model = v.mlp(task.features, task.classes)
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(),
          v.loader(task, shuffle=not broken))  # fmt: skip


@faulty("no_shuffle")
def slices_of_sorted_tensors(v: Variation, broken: bool) -> None:
    """No loader at all: the script cuts slices."""
    task = v.digits()
    _sorted(task)

    class Slices:
        def __iter__(self):  # type: ignore[no-untyped-def]
            count = len(task.inputs)
            order = torch.arange(count) if broken else torch.randperm(count)
            for start in range(0, count, 32):
                picked = order[start : start + 32]
                yield task.inputs[picked], task.targets[picked]

    model = nn.Sequential(nn.Flatten(), v.mlp(64, 10))
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), Slices())


@faulty("no_shuffle")
def sorted_by_amount(v: Variation, broken: bool) -> None:
    task = v.regression()
    _sorted(task)
    model = v.mlp(task.features, 1)
    v.fit(model, v.optimizer(model.parameters(), factor=0.5), nn.MSELoss(),
          v.loader(task, shuffle=not broken))  # fmt: skip
