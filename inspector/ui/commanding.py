"""Sending a command to the run from a button; trouble is shown where it was pressed."""

from __future__ import annotations

from typing import Any

import streamlit as st

from inspector.commands import Command, Name
from inspector.errors import CommandError, StoreError
from inspector.store.control import ControlWriter
from inspector.ui.context import escape, runs_dir


def send(
    run: str,
    name: Name,
    value: Any = None,
    *,
    control: str = "",
    target: str = "",
    said: str = "",
) -> None:
    """Callback of buttons; ``said`` is shown for a moment."""
    sent = submit(run, name, value, control=control, target=target)
    if sent is not None and said:
        st.toast(said)


def submit(
    run: str, name: Name, value: Any = None, *, control: str = "", target: str = ""
) -> str | None:
    """The id of the command that was sent; None, and why on the page, where it could not be."""
    try:
        command = Command(name=name, control=control, value=value, target=target)
        writer = ControlWriter(runs_dir() / run)
        try:
            return writer.send(command)
        finally:
            writer.close()
    except (CommandError, StoreError) as error:
        st.toast(escape(str(error)), icon="⚠️")
        return None
