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
) -> str | None:
    """Callback of buttons: the command's id; None, and why, where it could not be sent.

    Args:
        said: shown for a moment once it is sent.
    """
    try:
        command = Command(name=name, control=control, value=value, target=target)
        writer = ControlWriter(runs_dir() / run)
        try:
            sent = writer.send(command)
        finally:
            writer.close()
    except (CommandError, StoreError) as error:
        st.toast(escape(str(error)), icon="⚠️")
        return None
    if said:
        st.toast(said)
    return sent
