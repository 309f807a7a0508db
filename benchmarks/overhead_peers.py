"""Ways of watching a training: ours, by hand, and other people's."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import inspector
from inspector.capture import kernel

Step = Callable[[], None]


@dataclass
class Training:
    """One model in one contender's hands; ``note`` hears of the loss before backward."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    inputs: Tensor
    targets: Tensor

    def step(self, before: Callable[[Tensor], Any], after: Callable[[], Any]) -> None:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(self.inputs), self.targets)
        before(loss)
        loss.backward()
        after()
        self.optimizer.step()


def nothing(*_: object) -> None:
    return None


def bare(training: Training, _: Path) -> Step:
    return lambda: training.step(nothing, nothing)


def watched(every: int, *, machine: bool = True) -> Callable[[Training, Path], Step]:
    """Ours; without the time machine it measures what others measure, and cannot go back."""

    def build(training: Training, folder: Path) -> Step:
        watch = inspector.watch(
            training.model, training.optimizer, run_dir=folder, name="run", every=every
        )
        if not machine:
            watch.timemachine.close()
        return lambda: training.step(lambda loss: watch.record(loss=loss), nothing)

    return build


def least(training: Training, _: Path) -> Step:
    """What has to be done to memory, in compiled loops, for the parameters alone.

    Each gradient is read once; a copy of each weight is made, and compared after the step. Who
    watches modules too, or reads gradients as the optimizer receives them, does more.
    """
    compiled = kernel.load()
    if compiled is None:
        raise RuntimeError("needs a C compiler")
    parameters = list(training.model.parameters())
    sizes = kernel.Sizes(parameters)
    copies = np.empty(sum(sizes.numbers), np.float32)

    def before() -> None:
        compiled.gradients([p.grad for p in parameters if p.grad is not None], sizes)
        compiled.keep(parameters, sizes, copies.ctypes.data)

    def step() -> None:
        training.step(nothing, before)
        compiled.compare(parameters, sizes, copies.ctypes.data)

    return step


def parameter_norms(training: Training, _: Path) -> Step:
    def norms() -> list[float]:
        return [p.grad.norm().item() for p in training.model.parameters() if p.grad is not None]

    return lambda: training.step(lambda loss: loss.item(), norms)


def naive_hooks(training: Training, _: Path) -> Step:
    found: dict[str, list[float]] = {}

    def forward(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            found[name] = [output.mean().item(), output.std().item()]

        return hook

    def backward(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, gradients: Any) -> None:
            found[name + ".gradient"] = [gradients[0].norm().item()]

        return hook

    for name, module in training.model.named_modules():
        if not list(module.children()):
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]  # full backward hooks refuse it
            module.register_forward_hook(forward(name))
            module.register_full_backward_hook(backward(name))

    def norms() -> list[float]:
        return [p.grad.norm().item() for p in training.model.parameters() if p.grad is not None]

    return lambda: training.step(lambda loss: loss.item(), norms)


def anomaly(training: Training, _: Path) -> Step:
    def step() -> None:
        with torch.autograd.detect_anomaly():
            training.step(nothing, nothing)

    return step


def tensorboard(histograms: bool) -> Callable[[Training, Path], Step]:
    def build(training: Training, folder: Path) -> Step:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(folder)  # type: ignore[no-untyped-call]
        count = [0]

        def log() -> None:
            count[0] += 1
            for name, p in training.model.named_parameters():
                if p.grad is None:
                    continue
                if histograms:
                    writer.add_histogram(name, p.grad, count[0])  # type: ignore[no-untyped-call]
                else:
                    writer.add_scalar(name, p.grad.norm(), count[0])  # type: ignore[no-untyped-call]

        return lambda: training.step(nothing, log)

    return build


def lightning_norms(logged: bool) -> Callable[[Training, Path], Step]:
    """Lightning's own function for gradient norms, alone or with its TensorBoard logger."""

    def build(training: Training, folder: Path) -> Step:
        from lightning.pytorch.loggers import TensorBoardLogger
        from lightning.pytorch.utilities import grad_norm

        logger = TensorBoardLogger(folder) if logged else None
        count = [0]

        def log() -> None:
            norms = grad_norm(training.model, norm_type=2)
            if logger is not None:
                logger.log_metrics(norms, count[0])
                count[0] += 1

        return lambda: training.step(nothing, log)

    return build


def wandb_run(folder: Path) -> Any:
    import wandb

    if wandb.run is not None:  # one serves both contenders: watch() logs to the global one
        if folder.parent in Path(wandb.run.dir).parents:
            return wandb.run
        wandb.finish()
    return wandb.init(mode="offline", dir=folder, settings=wandb.Settings(silent=True))


def wandb_watch(training: Training, folder: Path) -> Step:
    run = wandb_run(folder)
    run.watch(training.model, log="gradients", log_freq=1)
    return lambda: training.step(lambda loss: run.log({"loss": loss.item()}), nothing)


def wandb_norms(training: Training, folder: Path) -> Step:
    run = wandb_run(folder)

    def log() -> None:
        named = training.model.named_parameters()
        run.log({name: p.grad.norm().item() for name, p in named if p.grad is not None})

    return lambda: training.step(nothing, log)


@dataclass(frozen=True)
class Contender:
    """A way of watching; ``slow`` ones get fewer steps."""

    build: Callable[[Training, Path], Step]
    slow: bool = False
    needs: str = ""


CONTENDERS = {
    "bare": Contender(bare),
    "a second bare loop": Contender(bare),
    "inspector, every step": Contender(watched(1)),
    "inspector, statistics alone": Contender(watched(1, machine=False)),
    "inspector, automatic": Contender(watched(0)),
    "least for gradients and ‖Δw‖": Contender(least),
    "gradient norms with .item()": Contender(parameter_norms),
    "naive hooks with .item()": Contender(naive_hooks),
    "detect_anomaly": Contender(anomaly),
    "Lightning grad_norm()": Contender(lightning_norms(False), needs="lightning"),
    "Lightning grad_norm(), logged": Contender(lightning_norms(True), True, "lightning"),
    "TensorBoard add_scalar": Contender(tensorboard(False), needs="tensorboard"),
    "TensorBoard add_histogram": Contender(tensorboard(True), True, "tensorboard"),
    "wandb, gradient norms": Contender(wandb_norms, True, "wandb"),
    "wandb.watch every step": Contender(wandb_watch, True, "wandb"),
}


def installed(slow: bool) -> dict[str, Contender]:
    """Those that can run here."""
    return {
        name: contender
        for name, contender in CONTENDERS.items()
        if (slow or not contender.slow)
        and (not contender.needs or importlib.util.find_spec(contender.needs) is not None)
    }
