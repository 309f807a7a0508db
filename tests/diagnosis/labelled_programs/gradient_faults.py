"""Faults that show in gradients, activations and step sizes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelled_programs.catalog import faulty
from labelled_programs.variation import Variation


@faulty("vanishing_gradient")
def deep_sigmoid(v: Variation, broken: bool) -> None:
    task = v.classification()
    hidden = [v.choose(24, 32, 48)] * v.choose(7, 9, 11)
    if not broken:
        hidden = hidden[:2]
    activation = nn.Sigmoid if broken else nn.ReLU
    model = v.mlp(task.features, task.classes, hidden=hidden, activation=activation)
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("vanishing_gradient")
def deep_sigmoid_convolutions(v: Variation, broken: bool) -> None:
    task = v.digits()
    channels, depth = v.choose(6, 8), v.choose(7, 9)
    parts: list[nn.Module] = []
    last = 1
    for _ in range(depth if broken else 3):
        parts += [nn.Conv2d(last, channels, 3, padding=1), nn.Sigmoid() if broken else nn.ReLU()]
        last = channels
    model = nn.Sequential(*parts, nn.Flatten(), nn.Linear(64 * channels, 10))
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task, batch=32),
          steps=100)  # fmt: skip


class _Stack(nn.Module):
    """Tanh modules; residual or plain."""

    def __init__(self, features: int, width: int, depth: int, classes: int, residual: bool) -> None:
        super().__init__()
        self.first = nn.Linear(features, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, classes)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x.flatten(1)))
        for module in self.hidden:
            y = torch.tanh(module(x))
            x = x + y if self.residual else y
        return self.last(x)


@faulty("vanishing_gradient")
def deep_tanh_without_residuals(v: Variation, broken: bool) -> None:
    task = v.classification()
    depth = v.choose(16, 20, 24)
    model = _Stack(task.features, 32, depth if broken else 6, task.classes, residual=not broken)
    optimizer = torch.optim.SGD(model.parameters(), lr=v.between(0.02, 0.06))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task), steps=150)


class _Recurrent(nn.Module):
    def __init__(self, width: int, scale: float, relu: bool) -> None:
        super().__init__()
        self.cell = nn.RNN(2, width, batch_first=True, nonlinearity="relu" if relu else "tanh")
        self.last = nn.Linear(width, 2)
        with torch.no_grad():
            nn.init.orthogonal_(self.cell.weight_hh_l0)
            self.cell.weight_hh_l0.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cell(x)[0][:, -1])


@faulty("exploding_gradient")
def recurrent_without_clipping(v: Variation, broken: bool) -> None:
    task = v.sequences(v.choose(30, 40))
    model = _Recurrent(v.choose(16, 24), v.between(2.0, 2.4) if broken else 0.95, relu=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=v.between(0.005, 0.02))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task, batch=16), steps=100)


class _Amplifying(nn.Module):
    def __init__(self, features: int, depth: int, classes: int, factor: float) -> None:
        super().__init__()
        self.first = nn.Linear(features, 32)
        self.blocks = nn.ModuleList(nn.Linear(32, 32) for _ in range(depth))
        self.last = nn.Linear(32, classes)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1))
        for block in self.blocks:
            x = x + self.factor * F.relu(block(x))
        return self.last(x)


@faulty("exploding_gradient")
def amplifying_residuals(v: Variation, broken: bool) -> None:
    task = v.classification()
    factor = v.between(4, 6) if broken else 0.2
    model = _Amplifying(task.features, v.choose(8, 10), task.classes, factor)
    optimizer = torch.optim.SGD(model.parameters(), lr=v.between(0.005, 0.02))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task), steps=150)


@faulty("exploding_gradient")
def product_over_time(v: Variation, broken: bool) -> None:
    """A learned factor multiplied up over many steps."""
    task = v.sequences(v.choose(20, 30))

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.Linear(2, 16)
            self.mix = nn.Linear(16, 16)
            self.last = nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            state = self.enter(x[:, 0])
            for t in range(1, x.shape[1]):
                grown = (2.0 if broken else 0.3) * self.mix(state).tanh()
                state = (1.3 if broken else 0.7) * state + grown + 0.3 * self.enter(x[:, t])
            return self.last(state)

    model = Product()
    optimizer = torch.optim.Adam(model.parameters(), lr=v.between(5e-4, 2e-3))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task, batch=16), steps=80)


@faulty("dead_relu")
def bias_far_below_zero(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes, hidden=[v.choose(32, 64)] * 3)
    linear = [module for module in model if isinstance(module, nn.Linear)]
    if broken:
        nn.init.constant_(linear[v.choose(0, 1, 2)].bias, -v.between(8, 15))
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("dead_relu")
def shifted_functional_relu(v: Variation, broken: bool) -> None:
    task = v.classification()
    shift = v.between(6, 10) if broken else 0.0

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(task.features, 48)
            self.second = nn.Linear(48, 48)
            self.last = nn.Linear(48, task.classes)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.first(x.flatten(1)))
            return self.last(F.relu(self.second(x) - shift))

    model = Shifted()
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("dead_relu")
def dead_channels(v: Variation, broken: bool) -> None:
    task = v.digits()
    model = v.convnet(10)
    if broken:
        with torch.no_grad():
            bias = model[v.choose(0, 3)].bias
            bias[: int(0.8 * len(bias))] = -v.between(5, 10)
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task), steps=120)


@faulty("saturated_activation")
def scaled_tanh(v: Variation, broken: bool) -> None:
    task = v.classification()
    scale = v.between(15, 40) if broken else 1.0

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(task.features, 40)
            self.second = nn.Linear(40, 40)
            self.last = nn.Linear(40, task.classes)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.tanh(scale * self.first(x.flatten(1)))
            return self.last(torch.tanh(scale * self.second(x)))

    model = Scaled()
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("saturated_activation")
def bias_at_the_bounds(v: Variation, broken: bool) -> None:
    task = v.classification()
    function = v.choose(nn.Tanh, nn.Sigmoid)
    model = v.mlp(task.features, task.classes, hidden=[48, 48], activation=function)
    linear = [module for module in model if isinstance(module, nn.Linear)]
    if broken:
        bias = linear[v.choose(0, 1)].bias
        with torch.no_grad():
            bias.copy_(v.between(8, 12) * torch.randn(len(bias)).sign())
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("saturated_activation")
def steep_sigmoid(v: Variation, broken: bool) -> None:
    task = v.digits()
    steep = v.between(25, 60) if broken else 1.0

    class Steep(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(steep * x)

    model = v.mlp(64, 10, hidden=[v.choose(32, 64)] * 2, activation=Steep)
    model = nn.Sequential(nn.Flatten(), *model)
    optimizer = torch.optim.Adam(model.parameters(), lr=v.between(2e-3, 5e-3))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task))


class _Risky(nn.Module):
    """Log, square root or division in the middle, guarded or not."""

    def __init__(self, features: int, classes: int, operation: str, guarded: bool) -> None:
        super().__init__()
        self.first = nn.Linear(features, 32)
        self.last = nn.Linear(32, classes)
        self.operation, self.guarded = operation, guarded

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1))
        if self.operation == "log":
            x = torch.log(x.abs() + 1 if self.guarded else x + 0.5)
        elif self.operation == "sqrt":
            x = torch.sqrt(F.relu(x) + 1e-3 if self.guarded else x)
        else:
            scale = F.relu(x[:, :1])
            x = x / (scale + 1 if self.guarded else scale)
        return self.last(x)


@faulty("nonfinite")
def risky_operation(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = _Risky(task.features, task.classes, v.choose("log", "sqrt", "divide"), not broken)
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("nonfinite")
def nan_in_a_sample(v: Variation, broken: bool) -> None:
    task = v.classification()
    if broken:
        flat = task.inputs.view(len(task.inputs), -1)
        for _ in range(v.choose(1, 3, 10)):
            flat[v.random.randrange(len(flat)), v.random.randrange(flat.shape[1])] = v.choose(
                float("nan"), float("inf")
            )
    model = v.mlp(task.features, task.classes)
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task))


@faulty("nonfinite")
def log_in_the_loss(v: Variation, broken: bool) -> None:
    """A hand-written cross-entropy whose log meets an exact zero."""
    task = v.classification()
    guard = 0.0 if broken else 1e-6

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        kept = F.relu(outputs) / (F.relu(outputs).sum(1, keepdim=True) + 1e-3)
        return -torch.log(kept.gather(1, targets[:, None]) + guard).mean()

    model = v.mlp(task.features, task.classes)
    if not broken:
        loss_fn = v.cross_entropy()  # type: ignore[assignment]
    optimizer = torch.optim.SGD(model.parameters(), lr=v.between(0.01, 0.05))
    v.fit(model, optimizer, loss_fn, v.loader(task))


@faulty("nonfinite")
def norm_of_zero(v: Variation, broken: bool) -> None:
    """A square root at zero: the value is fine, its gradient is not."""
    task = v.regression()
    guard = 0.0 if broken else 1e-6

    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(task.features, 32)
            self.last = nn.Linear(33, 1)

        def forward(self, x: Tensor) -> Tensor:
            hidden = F.relu(self.first(x))
            masked = hidden * (torch.rand(len(x), 1) > 0.02)
            length = (masked.square().sum(1, keepdim=True) + guard).sqrt()
            return self.last(torch.cat([hidden, length], 1))

    model = Norm()
    v.fit(model, v.optimizer(model.parameters()), nn.MSELoss(), v.loader(task))


@faulty("missing_zero_grad")
def never_cleared(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    v.fit(model, v.optimizer(model.parameters()), v.cross_entropy(), v.loader(task),
          zero_grad=not broken)  # fmt: skip


@faulty("missing_zero_grad")
def never_cleared_regression(v: Variation, broken: bool) -> None:
    task = v.regression()
    model = v.mlp(task.features, 1, activation=v.choose(nn.ReLU, nn.Tanh))
    v.fit(model, v.optimizer(model.parameters(), factor=0.3), nn.MSELoss(), v.loader(task),
          zero_grad=not broken)  # fmt: skip


@faulty("missing_zero_grad")
def cleared_once_per_epoch(v: Variation, broken: bool) -> None:
    task = v.digits()
    model = v.convnet(10)
    optimizer = v.optimizer(model.parameters())
    loss_fn = v.cross_entropy()
    loader = v.loader(task, batch=64)
    with v.watch(model, optimizer, loss_fn=loss_fn, loader=loader) as run:
        for _ in range(5):
            model.zero_grad()
            for inputs, targets in loader:
                if not broken:
                    model.zero_grad()
                loss = loss_fn(model(inputs), targets)
                loss.backward()
                optimizer.step()
                run.record(loss=loss)


@faulty("lr_too_high")
def sgd_diverges(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes, hidden=v.widths(3))
    lr = v.between(5, 30) if broken else v.between(0.05, 0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=v.choose(0.0, 0.5))
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task))


@faulty("lr_too_high")
def adam_too_fast(v: Variation, broken: bool) -> None:
    task = v.digits()
    model = v.choose(v.convnet(10), nn.Sequential(nn.Flatten(), v.mlp(64, 10)))
    lr = v.between(0.3, 2) if broken else v.between(1e-3, 3e-3)
    kind = v.choose(torch.optim.Adam, torch.optim.RMSprop)
    v.fit(model, kind(model.parameters(), lr=lr), v.cross_entropy(), v.loader(task), steps=120)


@faulty("lr_too_high")
def regression_diverges(v: Variation, broken: bool) -> None:
    task = v.regression()
    model = v.mlp(task.features, 1)
    lr = v.between(2, 10) if broken else v.between(0.01, 0.03)
    v.fit(model, torch.optim.SGD(model.parameters(), lr=lr), nn.MSELoss(), v.loader(task))


@faulty("lr_too_high")
def momentum_diverges(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes, activation=v.choose(nn.Tanh, nn.GELU))
    lr = v.between(2, 8) if broken else v.between(0.01, 0.03)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.95)
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task))


@faulty("lr_too_low")
def sgd_stands_still(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    lr = v.between(1e-7, 3e-5) if broken else v.between(0.05, 0.1)
    v.fit(model, torch.optim.SGD(model.parameters(), lr=lr), v.cross_entropy(), v.loader(task))


@faulty("lr_too_low")
def adam_stands_still(v: Variation, broken: bool) -> None:
    task = v.regression()
    model = v.mlp(task.features, 1, activation=v.choose(nn.ReLU, nn.Tanh))
    lr = v.between(1e-9, 1e-6) if broken else v.between(1e-3, 3e-3)
    v.fit(model, torch.optim.Adam(model.parameters(), lr=lr), nn.MSELoss(), v.loader(task))


@faulty("lr_too_low")
def schedule_falls_too_fast(v: Variation, broken: bool) -> None:
    task = v.classification()
    model = v.mlp(task.features, task.classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    gamma = 0.5 if broken else 0.995
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)
    v.fit(model, optimizer, v.cross_entropy(), v.loader(task), scheduler=scheduler)
