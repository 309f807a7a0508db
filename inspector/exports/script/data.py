"""The data in a script: how it is split, scaled and put into batches."""

from __future__ import annotations

import enum
import inspect
from pathlib import Path
from typing import Any

from torchvision.transforms import v2

from inspector.exports.script import pieces
from inspector.exports.script.facts import Facts
from inspector.exports.script.samples import Given, write_samples
from inspector.exports.script.text import Imports, Lines, literal, source_of
from inspector.training.models import image_size
from inspector.training.own.datasets import OwnLoaders
from inspector.training.samples import Samples, Source


class Data:
    """How a script gets its batches.

    Attributes:
        inputs, targets: expressions of a batch's parts: what the model and the loss get of them.
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
        self.inputs, self.targets = "inputs", "targets"
        self._given = Given("loaders")

    def write(self, imports: Imports, definitions: list[str], main: Lines, out: Path) -> None:
        """Adds the samples; ``main`` afterwards has rows of each part, or loaders."""
        imports.add("import torch\nfrom torch.utils.data import DataLoader")
        self._given = given = write_samples(self._facts, imports, definitions, main, out)
        self.inputs, self.targets = given.inputs, given.targets
        if isinstance(self._source, OwnLoaders):
            return
        by_row = given.form == "dataset"
        imports.add(f"from torch.utils.data import {'Subset' if by_row else 'TensorDataset'}")
        count = "len(dataset)" if by_row else "len(inputs)"
        self._split(self._source, definitions, imports, main, count)
        self._scale(imports, main)

    def write_loaders(self, imports: Imports, definitions: list[str], main: Lines) -> None:
        """Adds ``train_loader``, and ``val_loader`` where samples are held out."""
        if not isinstance(self._source, OwnLoaders):
            self._write_loaders(imports, definitions, main)
        if count := self._config.overfit_batches:
            imports.add("from itertools import islice")
            main.add(f"batches = list(islice(train_loader, {count}))",
                     "train_loader = DataLoader(batches, batch_size=None, "
                     "collate_fn=lambda batch: batch)")  # fmt: skip

    def _write_loaders(self, imports: Imports, definitions: list[str], main: Lines) -> None:
        config = self._config
        extra = f", num_workers={config.workers}" if config.workers else ""
        if self._given.collate:
            extra += f", collate_fn={self._given.collate}"
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
        if self._facts.validates:
            large = max(config.batch_size, 256)
            main.add(f"val_set = {self._part('val_rows')}",
                     f"val_loader = DataLoader(val_set, {large}{extra})")  # fmt: skip

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

    # ------------------------------------------------------------ parts and scaling

    def _split(
        self, source: Samples, definitions: list[str], imports: Imports, main: Lines, count: str
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

    def _scale(self, imports: Imports, main: Lines) -> None:
        """Normalisation by the figures that the run found, and enlargement."""
        scale = self._facts.task.scale
        if scale is not None:
            main.add(f"mean = torch.tensor({scale.mean.flatten().tolist()!r})"
                     f".view({list(scale.mean.shape)})",
                     f"std = torch.tensor({scale.std.flatten().tolist()!r})"
                     f".view({list(scale.std.shape)})")  # fmt: skip
            self.inputs = f"({self.inputs} - mean) / std"
        if self._size:
            imports.add("from torch.nn import functional as F")
            self.inputs = (
                f'F.interpolate({self.inputs}, {self._size}, mode="bilinear", antialias=True)'
            )

    def _part(self, rows: str) -> str:
        if self._given.form == "dataset":
            return f"Subset(dataset, {rows}.tolist())"
        return f"TensorDataset(inputs[{rows}], targets[{rows}])"


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
