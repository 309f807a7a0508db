"""The break-it menu: put a fault into the running model, let the class guess, reveal, heal."""

from __future__ import annotations

import streamlit as st

from inspector.faults import FAULTS
from inspector.ui.commanding import send
from inspector.ui.context import current_run, escape, is_live, opened
from inspector.ui.repair import refusal
from inspector.views import findings as words
from inspector.views import repair as view

_REFRESH = "2s"
_ALL = tuple(FAULTS)


def break_it_page() -> None:
    """The body of the page, for the run that this tab looks at."""
    with current_run() as run:
        name, live = run.name, is_live(run)
    st.subheader("Break it")
    st.caption(
        "Puts a fault into the model while it trains. Hidden, nothing in the app names it: look "
        "at the charts and guess. Healing puts back what was changed, and what it has wrecked."
    )
    if live:
        _menu(name)
    else:
        st.info("This run has ended; only a running model can be broken.")
    st.fragment(_history, run_every=_REFRESH if live else None)(name)


def _menu(name: str) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        hidden = st.toggle("Hidden", value=True, key="break-hidden",
                           help="The class guesses; you reveal it later.")  # fmt: skip
        st.button(
            "Surprise me", icon=":material/casino:", key="break-random", on_click=send,
            args=(name, "fault", {"action": "inject", "fault": "random", "hidden": True}),
            help="A fault that not even you know.",
        )  # fmt: skip
    columns = st.columns(3)
    for position, key in enumerate(_ALL):
        fault = FAULTS[key]
        columns[position % 3].button(
            fault.title[0].upper() + fault.title[1:],
            key=f"break-{key}",
            help=f"{fault.about} {fault.symptom}",
            width="stretch",
            on_click=send,
            args=(name, "fault", {"action": "inject", "fault": key, "hidden": hidden}),
        )


def _history(name: str) -> None:
    with opened(name) as run:
        rows, live = view.faults(run.events()), is_live(run)
        refusal(run.events(), "fault")
    for row in rows:
        with st.container(border=True, key=f"fault-{row.number}"):
            _row(name, row, live=live)


def _row(name: str, row: view.FaultRow, *, live: bool) -> None:
    title = escape(row.title) if row.title else "hidden: what is it?"
    ended = "" if row.healed is None else f", healed at step {row.healed}"
    st.markdown(f"**Fault {row.number}** since step {row.step}{ended}: **{title}**")
    known = next((fault for fault in FAULTS.values() if fault.title == row.title), None)
    if known is not None:
        st.caption(f"{known.about} {known.symptom}")
        st.caption("Look for: " + ", ".join(words.heading(code) for code in known.codes))
    if row.healed is not None or not live:
        return
    with st.container(horizontal=True, gap="small"):
        if not row.title:
            st.button(
                "Reveal", icon=":material/visibility:", key=f"reveal-{row.number}",
                on_click=send, args=(name, "fault", {"action": "reveal", "number": row.number}),
            )  # fmt: skip
        st.button(
            "Heal", icon=":material/healing:", key=f"heal-{row.number}", type="primary",
            on_click=send, args=(name, "fault", {"action": "heal", "number": row.number}),
        )  # fmt: skip
