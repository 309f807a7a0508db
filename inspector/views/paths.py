"""Module paths and parameter names in little room."""

from __future__ import annotations

import re

_INNER = re.compile(r"^(\D).*?(\d*)$")


def shortened(path: str, most: int) -> str:
    """At most so many letters of a path: as many names as it takes cut to a letter, from the left.

    Numbers stay, which tell modules apart: ``backbone.stage2.12.blocks.3.conv`` becomes
    ``b.s2.12.blocks.3.conv``. What is still too long loses its beginning. The charts in the
    browser do the same (``abbreviated`` in ``format.js``).
    """
    names = path.split(".")
    for place in range(len(names) - 1):
        if len(".".join(names)) <= most:
            break
        names[place] = _INNER.sub(r"\1\2", names[place])
    made = ".".join(names)
    return made if len(made) <= most else f"…{made[1 - most :]}"
