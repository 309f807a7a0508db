"""Writes docs/reference.md from the docstrings of events, commands, settings and quantities.

uv run python docs/make_reference.py
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

from inspector import commands, config, events, presets, quantities

TARGET = Path(__file__).parent / "reference.md"


def attributes(cls: type) -> dict[str, str]:
    """The entries of a docstring's ``Attributes:`` section, names to texts."""
    section = (inspect.getdoc(cls) or "").partition("Attributes:")[2]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        entry = re.match(r"    (\w[\w, ]*): (.*)", line)
        if entry:
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def cell(text: object) -> str:
    return str(text).replace("``", "`").replace("|", "\\|").replace("\n", " ")


def table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return [*lines, *(f"| {' | '.join(cell(item) for item in row)} |" for row in rows), ""]


def settings(cls: type) -> list[str]:
    texts = attributes(cls)
    rows: list[tuple[object, ...]] = []
    for item in dataclasses.fields(cls):
        default = item.default if item.default is not dataclasses.MISSING else ""
        rows.append((f"`{item.name}`", f"`{default!r}`" if default != "" else "", texts[item.name]))
    return table(("Name", "Default", "Meaning"), rows)


def reference() -> str:
    lines = ["# Reference", "", "Made by `docs/make_reference.py`; do not edit by hand.", ""]
    lines += ["## Events", "", (inspect.getdoc(events) or "").partition("\n\n")[2], ""]
    lines += table(
        ("Kind", "Level", "Meaning"),
        [
            (f"`{kind}`", cls.level, (inspect.getdoc(cls) or "").replace("\n\n", " "))
            for kind, cls in events.KINDS.items()
        ],
    )
    lines += ["## Controls", "", "Changed mid-run with the command `set`.", ""]
    lines += settings(commands.Controls)
    lines += ["## Commands", ""]
    lines += table(("Field", "Meaning"), list(attributes(commands.Command).items()))
    lines += ["## Settings of a run", "", "As in `--set key=value` and in `run.json`.", ""]
    lines += settings(config.RunConfig)
    lines += ["## Presets", ""]
    lines += table(
        ("Key", "Title", "What it is", "What to notice"),
        [
            (f"`{preset.key}`", preset.title, preset.about, preset.notice)
            for preset in presets.PRESETS
        ],
    )
    lines += ["## Quantities", "", "`scope` says what a series belongs to, `when` the moment "
              "of measuring.", ""]  # fmt: skip
    lines += table(
        ("Quantity", "Scope", "When", "Unit", "Meaning"),
        [
            (f"`{item.name}`", item.scope, item.when, item.unit, item.about)
            for item in quantities.QUANTITIES.values()
        ],
    )
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    TARGET.write_text(reference(), "utf-8")
