"""The lab's lessons: one TOML file each, shown in the order of their file names."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Slider:
    """A number of the snippet that the viewer may move.

    The snippet holds it as a line of its own, ``name = 0.1``, which moving the slider rewrites:
    what is read is what runs.
    """

    name: str
    low: float
    high: float
    step: float
    default: float

    @property
    def whole(self) -> bool:
        return self.step == int(self.step) and self.low == int(self.low)


@dataclass(frozen=True, slots=True)
class Lesson:
    """One lesson.

    Attributes:
        key: of the link that opens it.
        chapter: lessons of a chapter lie together.
        notice, question, answer: Markdown.
        error: class of the exception that the snippet ends with on purpose, "" for none.
        claims: what the texts say about the result: name, ``name.grad`` → number or nested list.
    """

    key: str
    chapter: str
    title: str
    snippet: str
    notice: str
    question: str
    answer: str
    sliders: tuple[Slider, ...]
    error: str
    claims: dict[str, Any]


@functools.cache
def lessons() -> dict[str, Lesson]:
    """All lessons by key."""
    found = (_read(path) for path in sorted(_FOLDER.glob("*.toml")))
    return {lesson.key: lesson for lesson in found}


def setting(snippet: str, name: str) -> float | None:
    """The number in the line ``name = number`` of a snippet; None when there is none."""
    found = _line(name).search(snippet)
    if found is None:
        return None
    try:
        value = ast.literal_eval(found["value"])
    except (ValueError, SyntaxError):
        return None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def with_setting(snippet: str, name: str, value: float) -> str:
    """The snippet with the number in the line ``name = number`` replaced."""
    return _line(name).sub(lambda found: f"{found['head']}{value!r}", snippet, count=1)


def _line(name: str) -> re.Pattern[str]:
    return re.compile(
        rf"^(?P<head>{re.escape(name)}[ \t]*=[ \t]*)(?P<value>[-+]?[\d_.]+(?:[eE][-+]?\d+)?)"
        r"(?=[ \t]*(?:#|$))",
        re.MULTILINE,
    )


def _read(path: Path) -> Lesson:
    fields = tomllib.loads(path.read_text("utf-8"))
    snippet = fields["snippet"].strip("\n")
    sliders = []
    for slider in fields.get("sliders", []):
        default = setting(snippet, slider["name"])
        if default is None:
            raise ValueError(f"{path.name}: the snippet has no line '{slider['name']} = number'.")
        sliders.append(Slider(default=default, **slider))
    return Lesson(
        key=path.stem.partition("_")[2],
        chapter=fields["chapter"],
        title=fields["title"],
        snippet=snippet,
        notice=fields["notice"].strip(),
        question=fields["question"].strip(),
        answer=fields["answer"].strip(),
        sliders=tuple(sliders),
        error=fields.get("error", ""),
        claims=fields.get("claims", {}),
    )
