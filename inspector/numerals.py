"""Numbers in the words of people, as the charts write them."""

from __future__ import annotations

import re

_PADDED = re.compile(r"e\+?(-?)0*(?=\d)")


def short(value: float, digits: int = 4) -> str:
    """So many significant digits; ``1.5e-5``, where Python writes ``1.5e-05``."""
    return _PADDED.sub(r"e\1", f"{value:.{digits}g}")
