"""Sending a command to the run from a button; trouble is shown where it was pressed."""

from __future__ import annotations

import time
from typing import Any

import streamlit as st

from inspector.commands import INTERVENTIONS, Command, Name
from inspector.errors import CommandError, StoreError
from inspector.store.control import ControlWriter, Sent
from inspector.ui.context import escape, opened, runs_dir

_TWO_CLICKS = 1.0  # seconds; what follows sooner is a double click


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
    """The id of the command that was sent; None, and why on the page, where it could not be.

    An intervention that the run has not answered yet is not asked for again: where steps are slow,
    a second click goes no further back, and does not divide the learning rate once more.
    """
    try:
        command = Command(name=name, control=control, value=value, target=target)
        writer = ControlWriter(runs_dir() / run)
        try:
            before = writer.newest(command) if name in INTERVENTIONS else None
            if before is not None and _on_its_way(run, before):
                st.toast("Sent already. The run takes it up between two steps.")
                return before.id
            return writer.send(command)
        finally:
            writer.close()
    except (CommandError, StoreError) as error:
        st.toast(escape(str(error)), icon="⚠️")
        return None


def _on_its_way(run: str, sent: Sent) -> bool:
    if time.time() - sent.wall < _TWO_CLICKS:
        return True
    with opened(run) as recorded:
        return all(getattr(stored.event, "command_id", "") != sent.id for stored in
                   recorded.events())  # fmt: skip
