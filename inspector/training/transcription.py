"""Reading sequences of unknown alignment: batches of different lengths, CTC, greedy decoding.

Graves et al., "Connectionist temporal classification", ICML 2006. Class 0 is the blank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from inspector.catalog import Kind, Layout
from inspector.errors import DataError

BLANK = 0


class Transcripts(NamedTuple):
    """Targets of a padded batch.

    Attributes:
        labels: [n, longest] int64 classes from 1 on, padded by 0.
        label_lengths: [n] labels of each sample.
        input_lengths: [n] columns or steps of each sample; the longest is as long as the batch.
    """

    labels: Tensor
    label_lengths: Tensor
    input_lengths: Tensor


def pad(samples: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Transcripts]:
    """Strips [channels, height, width] or sequences [steps, features] as one batch, with zeros.

    Strips are padded on the right, sequences at the end; labels by the blank.
    """
    inputs = [torch.as_tensor(sample[0]) for sample in samples]
    labels = [torch.as_tensor(sample[1], dtype=torch.long).flatten() for sample in samples]
    strips = inputs[0].ndim == 3
    steps = [x.permute(2, 0, 1) if strips else x for x in inputs]
    padded = pad_sequence(steps, batch_first=True)
    return (
        padded.permute(0, 2, 3, 1).contiguous() if strips else padded,
        Transcripts(
            pad_sequence(labels, batch_first=True, padding_value=BLANK),
            torch.tensor([len(one) for one in labels]),
            torch.tensor([len(one) for one in steps]),
        ),
    )


class TranscriptLoss(nn.CTCLoss):
    """CTC of log-probabilities [n, steps, classes] against :class:`Transcripts`.

    Padding counts neither in the inputs nor in the labels: the steps of a sample are its share of
    the batch's width.
    """

    def __init__(self, reduction: str = "mean", zero_infinity: bool = False) -> None:
        super().__init__(BLANK, reduction, zero_infinity)

    def forward(self, log_probs: Tensor, targets: Transcripts) -> Tensor:  # type: ignore[override]
        lengths = steps_of(targets.input_lengths, log_probs.shape[1])
        return super().forward(
            log_probs.float().transpose(0, 1), targets.labels, lengths, targets.label_lengths
        )


def steps_of(input_lengths: Tensor, steps: int) -> Tensor:
    """Steps of the output that belong to each sample, of ``steps`` for the longest one."""
    return (input_lengths * steps // input_lengths.max()).clamp(min=1)


def needed(labels: Tensor) -> int:
    """Steps that CTC needs at least: one a label, and a blank between two that are the same."""
    return len(labels) + int((labels[1:] == labels[:-1]).sum())


def greedy(log_probs: Tensor, input_lengths: Tensor) -> list[list[int]]:
    """The most likely class of each step; repeats are merged, then blanks left out."""
    best = log_probs.argmax(-1)
    before = torch.cat([torch.full_like(best[:, :1], BLANK), best[:, :-1]], dim=1)
    places = torch.arange(best.shape[1], device=best.device)
    valid = places < steps_of(input_lengths, best.shape[1])[:, None]
    kept = (best != BLANK) & (best != before) & valid
    return [row[mask].tolist() for row, mask in zip(best.cpu(), kept.cpu(), strict=True)]


@dataclass(frozen=True, slots=True)
class Strips:
    """Images of different widths and what is written on them; see ``samples.Samples``.

    Attributes:
        inputs: [channels, height, width] float32 each.
        targets: int64 classes from 1 on, each.
    """

    inputs: list[Tensor]
    targets: list[Tensor]
    class_names: tuple[str, ...]
    kind: Kind = "transcription"
    layout: Layout = "strip"
    notes: tuple[str, ...] = ()
    labels: None = None
    fixed: None = None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def shape(self) -> tuple[int, ...]:
        channels, height, _ = self.inputs[0].shape
        return channels, height, max(x.shape[2] for x in self.inputs)

    @property
    def outputs(self) -> int:
        return len(self.class_names)

    @property
    def lengths(self) -> Tensor:
        return torch.tensor(
            [(x.shape[2], needed(y)) for x, y in zip(self.inputs, self.targets, strict=True)]
        )

    def fetch(self, rows: Tensor) -> tuple[Tensor, Transcripts]:
        return pad([(self.inputs[row], self.targets[row]) for row in rows.tolist()])


def check_lengths(lengths: Tensor, width: int, steps: int, name: str) -> None:
    """Refuses samples whose labels no alignment can fit into the steps that a model gives.

    Args:
        lengths: [n, 2] length of each input, and the steps that its labels need.
        width, steps: of a batch's inputs, and of the outputs that the model makes of it.

    Raises:
        DataError: the loss would be infinite; the row is named.
    """
    given = (lengths[:, 0] * steps // width).clamp(min=1)
    wrong = (given < lengths[:, 1]).nonzero()[:, 0]
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"Row {row} of {name} needs {int(lengths[row, 1])} steps for its labels, but the model "
            f"gives {int(given[row])} for its length of {int(lengths[row, 0])} ({len(wrong):,} "
            "such rows), and CTC would be infinite; choose a model that shortens less."
        )
