"""Foreign names for what we record: ``train/loss``, ``val_acc``, ``learning_rate``, ….

A tag that :mod:`inspector.exports.tables` wrote leads back to its series. Well-known tags of
Lightning, Keras, Hugging Face and the PyTorch tutorials lead to our quantities; every other tag
stays the user's own scalar under its own name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from inspector.quantities import QUANTITIES, SeriesKey
from inspector.views.modules import ROOT

_PARTS = {
    "": ("", "train", "training", "batch"),
    "val": ("val", "valid", "validation", "eval", "dev"),
    "test": ("test",),
}
_NAMES = {
    "loss": ("loss", "loss step"),
    "accuracy": ("accuracy", "acc", "accuracy step", "acc step", "top1", "acc1"),
}
_OTHERS = {
    "lr": ("lr", "learning rate", "learningrate", "train lr", "train learning rate",
           "lr sgd", "lr adam", "lr adamw", "lr rmsprop", "lr adagrad"),
    "total_grad_norm": ("grad norm", "gradient norm", "train grad norm", "total grad norm"),
    "epoch": ("epoch", "train epoch"),
}  # fmt: skip


def _known() -> dict[frozenset[str], str]:
    found = {}
    for name, spellings in _NAMES.items():
        for part, prefixes in _PARTS.items():
            for spelling in spellings:
                for prefix in prefixes:
                    words = frozenset(f"{prefix} {spelling}".split())
                    found[words] = f"{part}_{name}" if part else name
    for name, spellings in _OTHERS.items():
        found |= {frozenset(spelling.split()): name for spelling in spellings}
    return found


_KNOWN = _known()


def keys_of(tags: Iterable[str]) -> dict[str, SeriesKey]:
    """The series of each tag; no two tags get the same one."""
    exact = {tag: key for tag in tags if (key := _ours(tag)) is not None}
    taken = set(exact.values())
    found = {}
    for tag in tags:
        key = exact.get(tag)
        if key is None:
            alias = _KNOWN.get(frozenset(re.findall(r"[a-z]+\d*", tag.lower())))
            key = SeriesKey(alias or tag)
            if key in taken:
                key = SeriesKey(tag)
            taken.add(key)
        found[tag] = key
    return found


def _ours(tag: str) -> SeriesKey | None:
    if tag in QUANTITIES and QUANTITIES[tag].scope == "run":
        return SeriesKey(tag)
    quantity, slash, subject = tag.partition("/")
    known = QUANTITIES.get(quantity)
    if known is None or not slash or known.scope == "run":
        return None
    return SeriesKey(quantity, known.scope, "" if subject == ROOT else subject)
