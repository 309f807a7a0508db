"""A line of source, as people are shown it."""

from __future__ import annotations

import re

_INSTALLED = re.compile(r".*[/\\](?:site|dist)-packages[/\\]")


def source_line(file: str, line: int) -> str:
    """``file:line``; of an installed package without the folder that it is installed in."""
    return f"{_INSTALLED.sub('', file)}:{line}"
