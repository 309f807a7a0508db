"""One drawing of the steering panel: what its widgets show, and what they send.

A widget shows the value in force. Between a change and its answer it shows what was asked for; a
refused change snaps back and the reason is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from inspector.commands import OF_OPTIMIZERS, Controls, Name, check
from inspector.errors import CommandError
from inspector.events import CommandApplied, CommandRefused
from inspector.store.reader import Run
from inspector.ui.commanding import submit
from inspector.ui.context import escape
from inspector.ui.fields import refusal, say
from inspector.views.optimizers import Place

_TWINS = {"lr_slider": ("lr",), "lr": ("lr_slider",)}


@dataclass(frozen=True)
class Panel:
    """One drawing of the panel.

    Attributes:
        controls: in force.
        answered: answers by command id.
        disabled: the run has ended.
        place: the optimizer or parameter group whose settings are shown; None where there is
            only one.
        drawn: the key under which this drawing shows each widget.
    """

    run: Run
    controls: Controls
    answered: dict[str, CommandApplied | CommandRefused]
    disabled: bool
    place: Place | None = None
    drawn: dict[str, str] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """What commands about the optimizer speak of."""
        return self.place.target if self.place else ""

    def of_place(self, control: str) -> str:
        """Name of a widget that shows a setting of the place."""
        return f"{control}/{self.target}" if self.target else control

    @property
    def watched(self) -> bool:
        """Whether a script of the user's own trains, whose loop the app does not hold."""
        return self.run.meta.get("kind") != "built_in"

    def key(self, widget: str) -> str:
        return f"steer/{self.run.name}/{widget}"

    def prepare(self, widget: str, value: Any) -> str:
        """The widget's key, its state set to the value in force unless a change is on its way."""
        place = f"{self.key(widget)}/drawn"
        key = str(st.session_state.get(place, self.key(widget)))
        # Setting it anew, even to the same value, would wipe out what is being typed.
        settled = not self.waits(widget)
        if settled and st.session_state.get(key) != value:
            # A browser that lags behind still reports what it showed before. Under a new key
            # that report cannot be taken for a change that a person made.
            if key in st.session_state:
                stem, _, number = key.partition("#")
                key = f"{stem}#{int(number or 0) + 1}"
            st.session_state[key] = value
        if settled:
            st.session_state[f"{self.key(widget)}/shown"] = value
        st.session_state[place] = self.drawn[widget] = key
        return key

    def waits(self, widget: str) -> bool:
        """Whether what was sent last has no answer yet; a refusal is told once."""
        place = f"{self.key(widget)}/sent"
        sent = st.session_state.get(place)
        answer = self.answered.get(sent) if sent else None
        told = self.key("told")  # two widgets may wait for the same answer
        if isinstance(answer, CommandRefused) and st.session_state.get(told) != sent:
            st.session_state[told] = sent
            st.toast(escape(answer.text), icon="⚠️")
        if answer is not None or self.disabled:
            st.session_state.pop(place, None)
            sent = None
        return bool(sent)

    def changed(self, widget: str, control: str) -> None:
        """Callback: sends the widget's value as the new value of a control."""
        key = self.drawn[widget]
        if st.session_state.get(f"{self.key(widget)}/drawn") != key or key not in st.session_state:
            return  # the report of a widget that has been replaced
        value = st.session_state[key]
        shown = f"{self.key(widget)}/shown"
        if st.session_state.get(shown) == value:
            return  # a browser's first report of a new widget: what it was drawn with
        st.session_state[shown] = value
        if control == "max_steps_per_s":
            value = value or None
        self.put(widget, control, value)

    def typed(self, widget: str, control: str) -> None:
        """Callback: sends the number that was typed into a field of text."""
        text = str(st.session_state.get(self.key(widget), "")).strip()
        if not text:
            return
        try:
            value = float(text)
        except ValueError:
            st.session_state[f"{self.key(widget)}/refused"] = (
                f"Expected a number such as 0.01, but got {text[:40]}."
            )
            return
        self.put(widget, control, value)

    def run_steps(self, widget: str) -> None:
        """Callback: trains as many steps as the field says now, which may not be drawn yet."""
        count = st.session_state.get(self.key(widget))
        if count is not None and not refusal("Steps", count, least=1):
            self.press("run_steps", int(count))

    def say(self, widget: str) -> None:
        """Why what was entered last cannot be used, below the widget until something else is."""
        say(st.session_state.get(f"{self.key(widget)}/refused", ""))

    def put(self, widget: str, control: str, value: Any) -> None:
        """Callback: sends a new value of a control, and waits for the answer."""
        refused = f"{self.key(widget)}/refused"
        st.session_state.pop(refused, None)
        try:
            check(control, value)
        except CommandError as error:
            st.session_state[refused] = f"{error} Nothing was changed; enter another number."
            return
        sent = self.send("set", control, value)
        base, slash, target = widget.partition("/")
        for twin in (widget, *(f"{twin}{slash}{target}" for twin in _TWINS.get(base, ()))):
            st.session_state[f"{self.key(twin)}/sent"] = sent

    def press(self, name: Name, value: Any = None) -> None:
        """Callback of a button."""
        st.session_state[f"{self.key(name)}/sent"] = self.send(name, value=value)

    def send(self, name: Name, control: str = "", value: Any = None) -> str | None:
        """The command's id; None, and why, where it could not be sent."""
        target = self.target if control in OF_OPTIMIZERS else ""
        return submit(self.run.name, name, value, control=control, target=target)
