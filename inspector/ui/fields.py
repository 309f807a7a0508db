"""Fields of forms; below one, a sentence where what was entered cannot be used.

Streamlit's own bounds of a number colour its field red, keep the value from the app and say
nothing, so that a form would go on with the number from before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import streamlit as st

from inspector.numerals import short
from inspector.ui.context import escape

T = TypeVar("T", int, float, int | None, float | None)

_refused: ContextVar[list[str] | None] = ContextVar("refused", default=None)


@contextmanager
def collecting() -> Iterator[list[str]]:
    """The sentences of all fields that are drawn inside and hold what cannot be used."""
    found: list[str] = []
    token = _refused.set(found)
    try:
        yield found
    finally:
        _refused.reset(token)


def number_field(
    label: str,
    value: T,
    *,
    key: str,
    least: float | None = None,
    most: float | None = None,
    place: Any = st,
    **options: Any,
) -> T:
    """The number that is filled in; ``value`` where that one cannot be used.

    Args:
        least, most: the smallest and largest number that can be used.
        place: a column or container to draw into.
        options: of ``st.number_input``.
    """
    typed: T = place.number_input(label, value=value, key=key, **options)
    sentence = refusal(label, typed, least=least, most=most)
    if not sentence:
        return typed
    refuse(sentence, place)
    return value


def refuse(sentence: str, place: Any = st) -> None:
    """Says below a field why what it holds cannot be used; its form is not used then."""
    say(sentence, place)
    collected = _refused.get()
    if collected is not None:
        collected.append(sentence)


def refusal(
    label: str, typed: float | None, *, least: float | None = None, most: float | None = None
) -> str:
    """Why a number cannot be used, as one sentence; empty if it can."""
    low = typed is not None and least is not None and typed < least
    high = typed is not None and most is not None and typed > most
    if typed is None or not (low or high):
        return ""
    bounds = [short(bound, 6) for bound in (least, most) if bound is not None]
    if len(bounds) == 2:
        wanted = f"from {bounds[0]} to {bounds[1]}"
    else:
        wanted = f"{bounds[0]} or {'more' if most is None else 'less'}"
    return f"{label} must be {wanted}, but got {short(typed, 10)}; enter another number."


def say(sentence: str, place: Any = st) -> None:
    """A sentence below a field, in the colour of errors."""
    if sentence:
        place.markdown(f":small[:red[{escape(sentence)}]]")
