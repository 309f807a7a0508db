"""What a preset is (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass

from inspector.config import RunConfig


@dataclass(frozen=True, slots=True)
class Preset:
    """A configuration with a story.

    Attributes:
        key: name on the command line.
        title: a few words for the gallery.
        about: one sentence: what is trained on what.
        notice: what to look at, and what to try.
        group: the heading that the gallery folds it under; empty for what the first screen shows.
    """

    key: str
    title: str
    about: str
    notice: str
    config: RunConfig
    group: str = ""
