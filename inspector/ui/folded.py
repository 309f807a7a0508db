"""A folded part of a page, which costs nothing while it is closed."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st


def folded(title: str, draw: Callable[[], object], *, icon: str, key: str) -> None:
    """A fold with a title, whose inside is drawn only while it is open.

    Args:
        icon: such as ``":material/tune:"``.
        key: keeps it open over script runs; unique on the page.
    """
    part = st.expander(title, icon=icon, key=key, on_change="rerun")
    if part.open:
        with part:
            draw()
