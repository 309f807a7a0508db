"""The steering panel: every control of a run, applied at the next step boundary."""

from __future__ import annotations

import math
from functools import partial

import streamlit as st

from inspector.events import CommandApplied
from inspector.numerals import short
from inspector.store.reader import Run
from inspector.ui.context import LIVE, escape, opened
from inspector.ui.fields import refusal, say
from inspector.ui.folded import folded
from inspector.ui.panel import Panel
from inspector.ui.practices.midrun import OWN_LOOP, midrun
from inspector.views.controls import answers, in_force
from inspector.views.newest import newest
from inspector.views.optimizers import Place, in_words, places, value

_LR_STEPS = (
    *(float(f"{digit}e{power}") for power in range(-6, 1) for digit in (1, 1.5, 2, 3, 5, 7)),
    10.0,
)
_RECENT = 200  # steps in which a script's own schedule has moved the rate
_NAMED = 3  # optimizers or groups whose rates are told below the one that leads them
_SPEEDS = (0.0, 200.0, 100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0)


def steering(name: str, *, live: bool) -> None:
    """The panel for one run; while the run is live it follows changes made in other tabs."""
    # Every two seconds is enough: what moves is drawn by the live strip, not by this panel.
    st.fragment(_panel, run_every="2s" if live else None)(name, live)


def _panel(name: str, was_live: bool) -> None:
    with opened(name) as run:
        live = run.status in LIVE
        events = run.events()
        place = _place(run)
        panel = Panel(run, in_force(run.config, events), answers(events), not live, place)
        if live:
            _buttons(panel)
        else:
            st.caption("This run has ended; its last settings are shown.")
        _choose_place(panel)
        _learning_rate(panel)
        _told_of_all(panel)
        _gradients(panel)
        _pace(panel)
        midrun(panel)
        more = partial(_more, panel)
        folded("More", more, icon=":material/more_horiz:", key=panel.key("more"))
    if was_live and not live:
        st.rerun()  # the page's own parts change when a run ends


def _buttons(panel: Panel) -> None:
    paused = panel.run.status == "paused"
    with st.container(horizontal=True, gap="xsmall"):
        st.button(
            "Resume" if paused else "Pause",
            icon=":material/play_arrow:" if paused else ":material/pause:",
            key=panel.key("pause"),
            type="primary" if paused else "secondary",
            on_click=panel.press,
            args=("resume" if paused else "pause",),
        )
        st.button(
            "Stop",
            icon=":material/stop:",
            key=panel.key("stop"),
            on_click=panel.press,
            args=("stop",),
            help="Ends the run after the step it is in. What was recorded stays.",
        )
        st.button(
            "",
            icon=":material/save:",
            key=panel.key("checkpoint"),
            disabled=panel.watched or panel.waits("checkpoint"),
            on_click=panel.press,
            args=("checkpoint",),
            help="Your own script saves its weights itself, with torch.save."
            if panel.watched
            else "Checkpoint now: weights, optimizer, random numbers; go on from it on Runs.",
        )
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        st.button(
            "1 step",
            key=panel.key("one"),
            on_click=panel.press,
            args=("run_steps", 1),
        )
        count = st.number_input(
            "Steps", value=10, key=panel.key("count"), width=56, label_visibility="collapsed"
        )
        sentence = refusal("Steps", count, least=1)
        st.button(
            "steps",
            key=panel.key("many"),
            on_click=panel.run_steps,
            args=("count",),
            disabled=bool(sentence),
            help="Trains this many steps, then pauses.",
        )
    say(sentence)


def _place(run: Run) -> Place | None:
    """What was chosen to be steered, of what there is."""
    found = {place.target: place for place in places(run)}
    return found.get(st.session_state.get(f"steer/{run.name}/place", "")) or found.get("")


def _choose_place(panel: Panel) -> None:
    """Which optimizer or parameter group the settings below are of, where there are several."""
    found = {place.target: place.title for place in places(panel.run)}
    if found:
        st.selectbox(
            "Settings of",
            list(found),
            format_func=lambda target: found.get(target, target),
            key=panel.key("place"),
            help="Learning rate, momentum and weight decay below are of this one. A learning rate "
            "for all is the first one's, and the others keep their ratios to it; momentum and "
            "weight decay for all become the same everywhere.",
        )


def _told_of_all(panel: Panel) -> None:
    """The rates that go with the first one's."""
    if panel.place is not None and not panel.target:
        words = in_words(panel.run, "lr", places(panel.run), _NAMED)
        st.caption(escape(f"Scaled together: {', '.join(words)}."))


def _learning_rate(panel: Panel) -> None:
    lr = _current(panel, "lr")
    typed, slider, exact = (panel.of_place(name) for name in ("lr_typed", "lr_slider", "lr"))
    if _moves(panel):
        panel.waits(typed)  # tells a refusal
        # What is drawn anew all the time can be neither dragged nor typed into.
        st.text_input(
            f"Learning rate, **{short(lr)}** now",
            key=panel.key(typed),
            placeholder="set another",
            on_change=panel.typed,
            args=(typed, "lr"),
            help="A schedule moves it. It goes on from the rate that you enter.",
        )
        panel.say(typed)
        return
    # Of a run that has ended the rate itself is shown, which need be none of the steps.
    steps = sorted({*_LR_STEPS, lr}) if panel.disabled else _LR_STEPS
    st.select_slider(
        "Learning rate",
        options=steps,
        format_func=short,
        key=panel.prepare(slider, min(steps, key=lambda step: _distance(step, lr))),
        on_change=panel.changed,
        args=(slider, "lr"),
        disabled=panel.disabled,
    )
    _number(panel, "lr", "Learning rate, exactly", lr, lr / 10 or 0.001, exact, bare=True)


def _gradients(panel: Panel) -> None:
    st.toggle(
        "`zero_grad()` each step",
        key=panel.prepare("zero_grad", panel.controls.zero_grad),
        on_change=panel.changed,
        args=("zero_grad", "zero_grad"),
        disabled=panel.disabled,
        help="Off: optimizer.zero_grad() does nothing, and the gradients of all passes pile up.",
    )
    clip = st.segmented_control(
        "Clip gradients",
        ["off", "norm", "value"],
        required=True,
        key=panel.prepare("clip", panel.controls.clip),
        on_change=panel.changed,
        args=("clip", "clip"),
        disabled=panel.disabled,
        help="norm: scales all gradients together to an L2 norm; value: cuts each number.",
    )
    if clip != "off":
        _number(panel, "clip_threshold", "Clip above", panel.controls.clip_threshold, 0.1)


def _pace(panel: Panel) -> None:
    speed = panel.controls.max_steps_per_s or 0.0
    options = tuple(sorted({*_SPEEDS, speed}, key=lambda value: -value if value else -math.inf))
    st.select_slider(
        "Slow motion",
        options=options,
        format_func=lambda value: f"{value:g} steps/s" if value else "full speed",
        key=panel.prepare("max_steps_per_s", speed),
        on_change=panel.changed,
        args=("max_steps_per_s", "max_steps_per_s"),
        disabled=panel.disabled,
    )


def _more(panel: Panel) -> None:
    st.number_input(
        "Backward passes a step",
        step=1,
        key=panel.prepare("accumulate", panel.controls.accumulate),
        on_change=panel.changed,
        args=("accumulate", "accumulate"),
        disabled=panel.disabled or panel.watched,
        help=OWN_LOOP
        if panel.watched
        else "Gradient accumulation: gradients of so many batches are averaged before each step.",
    )
    panel.say("accumulate")
    st.toggle(
        "Detect anomalies",
        key=panel.prepare("detect_anomaly", panel.controls.detect_anomaly),
        on_change=panel.changed,
        args=("detect_anomaly", "detect_anomaly"),
        disabled=panel.disabled,
        help="torch.autograd.set_detect_anomaly: names the backward function that makes a NaN "
        "and the line that called it. Slows training to a third or less.",
    )
    st.segmented_control(
        "On NaN or infinity",
        ["pause", "skip", "continue"],
        required=True,
        key=panel.prepare("on_nonfinite", panel.controls.on_nonfinite),
        on_change=panel.changed,
        args=("on_nonfinite", "on_nonfinite"),
        disabled=panel.disabled,
    )
    of = f" of {escape(panel.place.title)}" if panel.place and panel.target else ""
    momentum, decay = panel.of_place("momentum"), panel.of_place("weight_decay")
    st.slider(
        f"Momentum (Adam: β₁){of}",
        0.0,
        0.99,
        key=panel.prepare(momentum, min(_current(panel, "momentum"), 0.99)),
        on_change=panel.changed,
        args=(momentum, "momentum"),
        disabled=panel.disabled,
    )
    now = _current(panel, "weight_decay")
    _number(panel, "weight_decay", f"Weight decay{of}", now, 0.0001, decay)


def _number(
    panel: Panel,
    control: str,
    label: str,
    value: float,
    step: float,
    widget: str = "",
    *,
    bare: bool = False,
) -> None:
    widget = widget or control
    st.number_input(
        label,
        step=step,
        format="%.6g",
        key=panel.prepare(widget, float(value)),
        on_change=panel.changed,
        args=(widget, control),
        disabled=panel.disabled,
        label_visibility="collapsed" if bare else "visible",
    )
    panel.say(widget)


def _moves(panel: Panel) -> bool:
    """Whether a schedule, of the run or of a script's own, changes the learning rate."""
    if panel.disabled:
        return False
    schedule = panel.controls.schedule
    if panel.watched and (panel.controls.lr is None or panel.target):
        last = panel.run.heartbeat
        since = max(last.step - _RECENT if last else 0, _set_at(panel))
        name = panel.place.series("lr") if panel.place else "lr"
        rates = panel.run.series(name, first=since).values
        return len(rates) > 1 and bool(rates.min() < rates.max())
    return schedule is not None and schedule.get("name") != "constant"


def _set_at(panel: Panel) -> int:
    """The first step after the last change of a learning rate by hand; 0 where there was none."""
    return max(
        (
            stored.step
            for stored in panel.run.events()
            if isinstance(stored.event, CommandApplied) and stored.event.name == "lr"
        ),
        default=0,
    )


def _current(panel: Panel, control: str) -> float:
    """The control's value, or what a schedule or a watched script's optimizer was seen to use."""
    if panel.place is not None:
        found = value(panel.run, panel.place, control) or 0.0
        return found if math.isfinite(found) else 0.0
    chosen = getattr(panel.controls, control)
    if chosen is None or (control == "lr" and panel.controls.schedule):
        seen = newest(panel.run, control)
        chosen = seen[1] if seen else 0.0
    return float(chosen) if math.isfinite(chosen) else 0.0


def _distance(step: float, lr: float) -> float:
    return abs(math.log(max(step, 1e-9)) - math.log(max(lr, 1e-9)))
