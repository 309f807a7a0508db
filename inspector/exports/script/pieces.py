"""Functions that scripts hold as they stand here, with what they use of this package."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset, RandomSampler, WeightedRandomSampler
from torchvision import tv_tensors

from inspector.training.random_numbers import set_random_numbers


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def mnist(name: str, limit: int = 0) -> tuple[Tensor, Tensor]:
    """The training part of torchvision's MNIST or FashionMNIST: uint8 images and classes."""
    from torchvision import datasets

    part = getattr(datasets, name)("data", train=True, download=True)
    return part.data[: limit or None, None], part.targets[: limit or None]


def cifar10(limit: int = 0) -> tuple[Tensor, Tensor]:
    """The training part of CIFAR-10: uint8 images and classes."""
    from torchvision import datasets

    part = datasets.CIFAR10("data", train=True, download=True)
    images = torch.from_numpy(part.data.transpose(0, 3, 1, 2).copy())
    return images[: limit or None], torch.tensor(part.targets)[: limit or None]


def saved_samples() -> tuple[Tensor, Tensor]:
    """The samples as they were trained on."""
    kept = torch.load(Path(__file__).with_name("samples.pt"), weights_only=True)
    return kept["inputs"], kept["targets"]


def stratified(
    order: Tensor, labels: Tensor, validation: float, test: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the parts; in each, every class has the same share."""
    part = torch.zeros(len(order), dtype=torch.long)
    labels = labels[order]
    for label in torch.unique(labels):
        places = (labels == label).nonzero()[:, 0]
        end = round(validation * len(places))
        end_of_test = min(end + round(test * len(places)), len(places) - 1)
        part[places[: min(end, len(places) - 1)]] = 1
        part[places[end:end_of_test]] = 2
    return order[part == 0], order[part == 1], order[part == 2]


@torch.no_grad()
def mean_loss(
    model: nn.Module,
    loader: Iterable[Any],
    loss_of: Callable[[Any], Tensor],
    size_of: Callable[[Any], int] = lambda batch: len(batch[0]),
) -> float:
    """Mean loss over the samples of a held-out part, in eval mode."""
    model.eval()
    total, count = torch.zeros(()), 0
    for batch in loader:
        samples = size_of(batch)
        total, count = total + samples * loss_of(batch), count + samples
    return total.item() / count if count else float("nan")


def rest_of_epoch(
    loader: Iterable[Any],
    generators: Sequence[torch.Generator],
    checkpoint: dict[str, Any],
    done: int,
) -> Iterator[Any]:
    """The batches that were left of the epoch: it is drawn again, and those done are passed over.

    All random numbers are afterwards as they were at the checkpoint.
    """
    begun = checkpoint["begun"]
    set_random_numbers(begun["random"])
    for generator, state in zip(generators, begun["generators"], strict=True):
        generator.set_state(state)
    batches = iter(loader)
    for _ in islice(batches, done):
        pass
    set_random_numbers(checkpoint["random"])
    return batches


def replace(model: nn.Module, wanted: str, kind: type[nn.Module]) -> None:
    """Puts new modules in the place of those of a type, or of the one at a path."""
    made: dict[int, nn.Module] = {}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if path and wanted in (path, type(module).__name__):
            new = made.setdefault(id(module), kind().train(module.training))
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, new)


def freeze(model: nn.Module, paths: Collection[str], trainable: Collection[str]) -> None:
    """Parameters in these modules keep their values; all others of ``trainable`` learn."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        frozen = any(name.startswith(f"{path}.") for path in paths)
        if name in trainable and parameter.requires_grad == frozen:
            parameter.requires_grad_(not frozen)
            if frozen:
                parameter.grad = None


def train_mode(model: nn.Module, held: Collection[str]) -> None:
    """Puts the model into train mode, but these modules (paths or types) into eval mode."""
    model.train()
    for path, module in model.named_modules():
        if path in held or {base.__name__ for base in type(module).__mro__} & set(held):
            module.eval()


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Sets the first group's learning rate; the others keep their ratios to it."""
    before = [float(group["lr"]) for group in optimizer.param_groups]
    for group, old in zip(optimizer.param_groups, before, strict=True):
        group["lr"] = lr * old / before[0] if before[0] > 0 else lr
    optimizer.param_groups[0]["lr"] = lr


def set_rates(optimizer: Optimizer, rates: Sequence[float]) -> None:
    """Sets each group's learning rate; groups that came later have the last one."""
    for number, group in enumerate(optimizer.param_groups):
        group["lr"] = rates[min(number, len(rates) - 1)]


def set_momentum(optimizer: Optimizer, momentum: float) -> None:
    """Sets the momentum; of Adam and its kin the first beta."""
    for group in optimizer.param_groups:
        if "betas" in group:
            group["betas"] = (momentum, *group["betas"][1:])
            continue
        group["momentum"] = momentum
        if isinstance(optimizer, torch.optim.RMSprop) and momentum > 0:
            for parameter in group["params"]:
                state = optimizer.state.get(parameter)
                if state and "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)


class SeededSampler(RandomSampler):
    """Draws samples at random, each with a seed for what changes it."""

    def __iter__(self) -> Iterator[Any]:
        places = list(super().__iter__())
        return zip(places, draw_seeds(len(places), self.generator), strict=True)


class SeededWeightedSampler(WeightedRandomSampler):
    """Draws classes equally often, each sample with a seed for what changes it."""

    def __iter__(self) -> Iterator[Any]:
        places = list(super().__iter__())
        return zip(places, draw_seeds(len(places), self.generator), strict=True)


def draw_seeds(count: int, generator: torch.Generator | None) -> list[int]:
    return torch.randint(2**62, (count,), generator=generator).tolist()


class Augmented(Dataset[Any]):
    """Images that are changed whenever they are drawn; targets of their size move with them."""

    def __init__(self, images: Tensor, targets: Tensor, transform: Any) -> None:
        self.images, self.targets, self.transform = images, targets, transform
        self.moved = targets.ndim >= 3 and targets.shape[-2:] == images.shape[-2:]

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, draws: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        places = [place for place, _ in draws]
        images, targets = [], []
        state = torch.get_rng_state()
        for place, seed in draws:
            torch.default_generator.manual_seed(seed)
            image, target = tv_tensors.Image(self.images[place]), self.targets[place]
            if self.moved:
                kind = tv_tensors.Image if target.is_floating_point() else tv_tensors.Mask
                image, target = self.transform(image, kind(target))
                targets.append(target.as_subclass(Tensor))
            else:
                image = self.transform(image)
            images.append(image.as_subclass(Tensor))
        torch.set_rng_state(state)
        return torch.stack(images), torch.stack(targets) if self.moved else self.targets[places]


class Plan:
    """A schedule whose rates were changed by hand.

    The scheduler runs on an optimizer without parameters; the real one follows it in proportion
    to what was set by hand.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        self.optimizer, self.written = optimizer, rates
        groups = [{"params": [torch.zeros(())], "lr": lr} for lr in rates]
        self.own = torch.optim.SGD(groups, lr=rates[0])
        self.by_hand: dict[int, tuple[float, float]] = {}

    def changed(self) -> dict[int, float]:
        """Groups whose rate was set by hand, or that are new, with that rate."""
        rates, known = [float(group["lr"]) for group in self.optimizer.param_groups], self.written
        return {i: lr for i, lr in enumerate(rates) if i >= len(known) or lr != known[i]}

    def take(self, changed: dict[int, float]) -> None:
        """These rates stand for the scheduler's of this moment."""
        for number, lr in changed.items():
            self.by_hand[number] = lr, self.planned(number)

    def planned(self, number: int) -> float:
        """The scheduler's rate of a group; groups that came later go with the first one."""
        groups = self.own.param_groups
        return float(groups[number if number < len(groups) else 0]["lr"])

    def follow(self) -> None:
        """Gives the optimizer its rates."""
        for number, group in enumerate(self.optimizer.param_groups):
            lr = self.planned(number)
            if number in self.by_hand:
                wanted, instead_of = self.by_hand[number]
                lr = wanted * (lr / instead_of) if instead_of else wanted
            group["lr"] = lr
        self.written = [float(group["lr"]) for group in self.optimizer.param_groups]


def restore_plan(plan: Plan, scheduler: Any, kept: dict[str, Any]) -> None:
    """The plan goes on where it was, with what was set by hand before."""
    del plan.own.param_groups[len(kept["plan"]) :]
    for group, saved in zip(plan.own.param_groups, kept["plan"], strict=True):
        group.update(saved)
    plan.by_hand, plan.written = dict(kept["bends"]), list(kept["written"])
    if scheduler is not None:
        scheduler.load_state_dict(kept["scheduler"])


def restore_scheduler(optimizer: Optimizer, scheduler: Any, kept: dict[str, Any]) -> None:
    """The scheduler goes on where it was; it keeps a part of its state in the optimizer."""
    for group, saved in zip(optimizer.param_groups, kept["plan"], strict=True):
        group.update(
            {key: saved[key] for key in ("initial_lr", "max_lr", "min_lr") if key in saved}
        )
    scheduler.load_state_dict(kept["scheduler"])
