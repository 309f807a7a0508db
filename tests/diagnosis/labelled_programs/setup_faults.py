"""Faults in what is trained, and in which mode."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelled_programs.catalog import faulty
from labelled_programs.variation import Variation, validation


@faulty("frozen_parameters")
def optimizer_got_a_part(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes, hidden=[48, 48])
    linear = [module for module in model if isinstance(module, nn.Linear)]
    parameters = model.parameters()
    if broken:
        left_out = v.choose(0, 1, 2)
        parameters = [p for i, m in enumerate(linear) if i != left_out for p in m.parameters()]
    v.fit(model, v.optimizer(parameters), v.cross_entropy(), v.loader(task))


@faulty("frozen_parameters")
def head_replaced_after_the_optimizer(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, 1000, hidden=[48, 48])
    if not broken:
        model[-1] = nn.Linear(48, task.classes)
    optimizer = v.optimizer(model.parameters())
    if broken:
        model[-1] = nn.Linear(48, task.classes)
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task))


class _Halves(nn.Module):
    def __init__(self, features: int, classes: int, cut: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(features, 48), nn.ReLU(), nn.Linear(48, 32))
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(32, classes))
        self.cut = cut

    def forward(self, x: Tensor) -> Tensor:
        code = self.encoder(x.flatten(1))
        return self.head(code.detach() if self.cut else code)


@faulty("frozen_parameters")
def detached_in_the_middle(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = _Halves(task.features, task.classes, broken)
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("frozen_parameters")
def encoder_without_gradients(v: Variation, broken: bool) -> None:
    """The encoder runs under no_grad(), though it should learn."""
    task = v.classification()

    class Encoded(_Halves):
        def forward(self, x: Tensor) -> Tensor:
            with torch.set_grad_enabled(not broken):
                code = self.encoder(x.flatten(1))
            return self.head(code)

    model = Encoded(task.features, task.classes, False)
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("frozen_parameters")
def frozen_behind_trainable(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes, hidden=[48, 48, 48])
    linear = [module for module in model if isinstance(module, nn.Linear)]
    if broken:
        linear[v.choose(1, 2, 3)].requires_grad_(False)
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("frozen_parameters")
def loss_from_detached_outputs(v: Variation, broken: bool) -> None:
    """Backward is refused: the run ends in an exception."""
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    criterion = v.cross_entropy()

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        return criterion(outputs.detach() if broken else outputs, targets)

    v.fit(model, v.optimizer(model.parameters()), loss_fn, v.loader(task))


@faulty("frozen_parameters")
def modules_in_a_plain_list(v: Variation, broken: bool) -> None:
    """Modules in a list are not registered, so the optimizer never hears of them."""
    task = v.classification()

    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(task.features, 48)
            hidden = [nn.Linear(48, 48), nn.Linear(48, 48)]
            self.hidden = hidden if broken else nn.ModuleList(hidden)
            self.last = nn.Linear(48, task.classes)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.first(x.flatten(1)))
            for module in self.hidden:
                x = F.relu(module(x))
            return self.last(x)

    model = Listed()
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


def _with_dropout(v: Variation, features: int, classes: int) -> nn.Sequential:
    if v.choose(True, False):
        between = lambda width: [nn.BatchNorm1d(width)]  # noqa: E731
    else:
        between = lambda _width: [nn.Dropout(v.choose(0.1, 0.2))]  # noqa: E731
    return v.mlp(features, classes, hidden=[64, 64], between=between)


@faulty("mode_mistake")
def eval_from_the_start(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = _with_dropout(v, task.features, task.classes)
    if broken:
        model.eval()
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("mode_mistake")
def eval_after_validation(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = _with_dropout(v, task.features, task.classes)
    loss_fn = v.cross_entropy()
    v.fit(model, v.optimizer(model.parameters()), loss_fn, v.loader(task),
          validate=validation(model, loss_fn, task, back=not broken))  # fmt: skip


@faulty("mode_mistake")
def validation_in_train_mode(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = _with_dropout(v, task.features, task.classes)
    loss_fn = v.cross_entropy()
    v.fit(model, v.optimizer(model.parameters()), loss_fn, v.loader(task),
          validate=validation(model, loss_fn, task, switch=not broken))  # fmt: skip


@faulty("mode_mistake")
def validation_with_gradients_in_train_mode(v: Variation, broken: bool) -> None:
    """Neither eval() nor no_grad() around validation; the twin forgets no_grad() only."""
    task = v.classification()
    model = _with_dropout(v, task.features, task.classes)
    loss_fn = v.cross_entropy()

    def measure() -> dict[str, float]:
        model.train(broken)
        value = loss_fn(model(task.held_inputs), task.held_targets)
        model.train()
        return {"val_loss": float(value.detach())}

    v.fit(model, v.optimizer(model.parameters()), loss_fn, v.loader(task), validate=measure,
          validate_every=15)  # fmt: skip


@faulty("mode_mistake")
def torch_eval_in_a_convnet(v: Variation, broken: bool) -> None:
    task = v.digits()
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(512, 10),
    )  # fmt: skip
    model.train(not broken)
    optimizer = torch.optim.Adam(model.parameters(), lr=v.between(1e-3, 3e-3))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task), steps=100)
