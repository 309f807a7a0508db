"""The data in a script: where it is from, how it is split, scaled and put into batches."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from inspector.errors import ExportError
from inspector.exports.script import pieces
from inspector.exports.script.facts import Facts
from inspector.exports.script.model import import_own
from inspector.exports.script.text import Imports, Lines, call, literal, source_of
from inspector.training import bundled
from inspector.training.models import image_size
from inspector.training.own.datasets import OwnLoaders, OwnSamples
from inspector.training.samples import Samples, Source

_BUNDLED: dict[str, Callable[..., Any]] = {
    name: getattr(bundled, name)
    for name in (
        "digits", "digit_rows", "soft_digits", "two_moons", "spirals", "long_memory", "diabetes",
        "fake_images",
    )
}  # fmt: skip
_DOWNLOADED = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
_LARGEST = 2 << 30


class Data:
    """How a script gets its batches.

    Attributes:
        prepare: an expression of the inputs of a batch; ``inputs`` where nothing is done.
        echo: inputs are targets too.
        pairs: batches are inputs and targets, and not something of the user's own.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts, self._config = facts, facts.config
        self._source = facts.task.source
        self._size = image_size(self._config.model, self._source)
        self.echo = facts.task.kind == "reconstruction" and (
            isinstance(self._source, Source) or self._source.kind != "reconstruction"
        )
        self.pairs = facts.task.kind != "own"
        self.prepare = "inputs"

    def write(self, imports: Imports, definitions: list[str], main: Lines, out: Path) -> None:
        """Adds the samples; ``main`` afterwards has rows of each part, or loaders."""
        imports.add("import torch\nfrom torch.utils.data import DataLoader")
        if isinstance(self._source, OwnLoaders):
            self._own_loaders(imports, main)
        elif not self.pairs and isinstance(self._source, OwnSamples):
            self._own_dataset(imports, main)
            self._split(self._source, imports, definitions, main, "len(dataset)")
        else:
            self._tensors(imports, definitions, main, out)
            self._split(self._source, imports, definitions, main, "len(inputs)")
            self._scale(main)

    def write_loaders(self, imports: Imports, definitions: list[str], main: Lines) -> None:
        """Adds ``train_loader``, ``val_loader`` and ``test_loader`` where there are such parts."""
        if isinstance(self._source, OwnLoaders):
            return
        config, task = self._config, self._facts.task
        extra = f", num_workers={config.workers}" if config.workers else ""
        if not self.pairs and self._own_collate():
            extra += ", collate_fn=collate_fn"
        shuffle = f"shuffle = torch.Generator().manual_seed({config.seed + 1})"
        if config.augment:
            self._write_augmentation(imports, definitions, main)
        else:
            main.add(f"train_set = {self._part('train_rows')}")
        main.add(shuffle)
        drawn = self._write_drawing(imports, definitions, main)
        whole = ", collate_fn=lambda batch: batch" if config.augment else ""
        main.add(
            f"train_loader = DataLoader(train_set, {config.batch_size}, {drawn}{whole}{extra})"
        )
        large = max(config.batch_size, 256)
        for name, loader in (("val", task.val_loader), ("test", task.test_loader)):
            if len(loader):
                main.add(f"{name}_set = {self._part(f'{name}_rows')}",
                         f"{name}_loader = DataLoader({name}_set, {large}{extra})")  # fmt: skip
        if config.overfit_batches:
            imports.add("from itertools import islice")
            main.add(f"batches = list(islice(train_loader, {config.overfit_batches}))",
                     "train_loader = DataLoader(batches, batch_size=None, "
                     "collate_fn=lambda batch: batch)")  # fmt: skip

    def _write_drawing(self, imports: Imports, definitions: list[str], main: Lines) -> str:
        """Adds a sampler where one is needed; the arguments of the loader that draw samples."""
        seeded = bool(self._config.augment)
        if self._config.balance:
            name = "SeededWeightedSampler" if seeded else "WeightedRandomSampler"
            if seeded:
                definitions += source_of(imports, pieces.draw_seeds, pieces.SeededWeightedSampler)
            else:
                imports.add("from torch.utils.data import WeightedRandomSampler")
            main.add("labels = targets[train_rows]",
                     "weights = (1.0 / labels.bincount()[labels].double()).tolist()",
                     f"sampler = {name}(weights, len(labels), generator=shuffle)")  # fmt: skip
            return "sampler=sampler"
        if seeded:
            definitions += source_of(imports, pieces.draw_seeds, pieces.SeededSampler)
            main.add("sampler = SeededSampler(train_set, generator=shuffle)")
            return "sampler=sampler, generator=shuffle"
        return "shuffle=True, generator=shuffle"

    def _write_augmentation(self, imports: Imports, definitions: list[str], main: Lines) -> None:
        imports.add("from torchvision.transforms import v2")
        definitions += source_of(imports, pieces.Augmented)
        made = [_transform(entry) for entry in self._config.augment]
        if len(made) == 1:
            main.add(f"transform = {made[0]}")
        else:
            main.add("transform = v2.Compose([", *(f"    {one}," for one in made), "])")
        main.add("train_set = Augmented(inputs[train_rows], targets[train_rows], transform)")

    # ------------------------------------------------------------ where samples are from

    def _tensors(self, imports: Imports, definitions: list[str], main: Lines, out: Path) -> None:
        name, given = self._config.data, self._config.data_args
        if name in _BUNDLED:
            definitions += source_of(imports, _BUNDLED[name])
            main.add(f"inputs, targets = {call(name, given)}")
        elif name in _DOWNLOADED:
            definitions += source_of(imports, pieces.mnist)
            main.add(f"inputs, targets = {call('mnist', {'name': _DOWNLOADED[name], **given})}")
        elif name == "cifar10":
            definitions += source_of(imports, pieces.cifar10)
            main.add(f"inputs, targets = {call('cifar10', given)}")
        else:
            inputs, targets = self._kept()
            torch.save({"inputs": inputs, "targets": targets}, out / "samples.pt")
            definitions += source_of(imports, pieces.saved_samples)
            main.add(f"inputs, targets = saved_samples()  # of {self._facts.run.config['data']}")
        inputs_are_bytes = isinstance(self._source, Source) and (
            self._source.inputs.dtype == torch.uint8
        )
        if inputs_are_bytes and self._config.augment:
            main.add("inputs = inputs.float() / 255")
        elif inputs_are_bytes:
            self.prepare = "inputs.float() / 255"

    def _kept(self) -> tuple[Tensor, Tensor]:
        """All samples as tensors, to be saved beside the script."""
        source = self._source
        if isinstance(source, Source):
            return source.inputs, source.targets
        assert not isinstance(source, OwnLoaders)
        batch: Any = source.fetch(torch.arange(len(source)))
        fits = isinstance(batch, (tuple, list)) and all(isinstance(x, Tensor) for x in batch)
        if not fits or sum(x.nbytes for x in batch) > _LARGEST:
            raise ExportError(
                f"A script cannot hold the samples of {self._config.data}: they are not tensors of "
                "one shape, or more than 2 GB; export config instead."
            )
        return batch[0], batch[1]

    def _own_dataset(self, imports: Imports, main: Lines) -> None:
        name = import_own(self._config.data, imports)
        if self._own_collate():
            import_own(self._config.data.rpartition(":")[0] + ":collate_fn", imports)
        main.add(f"dataset = {call(name, self._config.data_args)}")
        assert isinstance(self._source, OwnSamples)
        if self._source.fixed is not None:
            imports.add("from torch.utils.data import ConcatDataset")
            main.add("dataset = ConcatDataset(dataset)")

    def _own_loaders(self, imports: Imports, main: Lines) -> None:
        name = import_own(self._config.data, imports)
        found = call(name, self._config.data_args)
        both = len(self._facts.task.val_loader) > 0
        main.add(f"train_loader, val_loader = {found}" if both else f"train_loader = {found}")

    def _own_collate(self) -> bool:
        data = self._facts.own.data
        return data is not None and hasattr(data.module, "collate_fn")

    # ------------------------------------------------------------ parts and scaling

    def _split(
        self, source: Samples, imports: Imports, definitions: list[str], main: Lines, count: str
    ) -> None:
        config = self._config
        if source.fixed is not None:
            first = len(source.fixed[0])
            main.add(f"train_rows = torch.arange({first})",
                     f"val_rows = torch.arange({first}, {count})")  # fmt: skip
            return
        total = len(source)
        held, kept = round(config.validation * total), round(config.test * total)
        main.add(f"order = torch.randperm({count}, "
                 f"generator=torch.Generator().manual_seed({config.seed}))")  # fmt: skip
        if config.stratify:
            definitions += source_of(imports, pieces.stratified)
            main.add("train_rows, val_rows, test_rows = stratified("
                     f"order, targets, {config.validation}, {config.test})")  # fmt: skip
            return
        main.add(f"train_rows = order[{held + kept}:]")
        if held:
            main.add(f"val_rows = order[:{held}]")
        if kept:
            main.add(f"test_rows = order[{held} : {held + kept}]")

    def _scale(self, main: Lines) -> None:
        """Normalisation by the figures that the run found, and enlargement."""
        scale = self._facts.task.scale
        if scale is not None:
            main.add(f"mean = torch.tensor({scale.mean.flatten().tolist()!r})"
                     f".view({list(scale.mean.shape)})",
                     f"std = torch.tensor({scale.std.flatten().tolist()!r})"
                     f".view({list(scale.std.shape)})")  # fmt: skip
            self.prepare = f"({self.prepare} - mean) / std"
        if self._size:
            self.prepare = (
                f'F.interpolate({self.prepare}, {self._size}, mode="bilinear", antialias=True)'
            )

    def _part(self, rows: str) -> str:
        if self.pairs:
            return f"TensorDataset(inputs[{rows}], targets[{rows}])"
        return f"Subset(dataset, {rows}.tolist())"

    def import_parts(self, imports: Imports) -> None:
        if isinstance(self._source, OwnLoaders):
            return
        imports.add(f"from torch.utils.data import {'TensorDataset' if self.pairs else 'Subset'}")
        if self._size:
            imports.add("from torch.nn import functional as F")


def _transform(entry: Any) -> str:
    """A transform of torchvision's v2, as source; enumerations by their members."""
    settings = {"name": entry} if isinstance(entry, str) else dict(entry)
    name = settings.pop("name")
    usual = inspect.signature(getattr(v2, name)).parameters
    given = []
    for key, value in settings.items():
        default = usual[key].default
        text = literal(value)
        if isinstance(default, enum.Enum):
            text = f"v2.{type(default).__name__}({text})"
        given.append(f"{key}={text}")
    return f"v2.{name}({', '.join(given)})"
