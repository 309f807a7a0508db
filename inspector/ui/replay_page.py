"""The page of the replay: an expression or a step of the run, gone through backwards."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

import streamlit as st

from inspector.commands import Command
from inspector.errors import InspectorError, StoreError
from inspector.lab.sandbox import shared
from inspector.numerals import short
from inspector.store.control import ControlWriter
from inspector.store.reader import Run
from inspector.ui import context, presenter
from inspector.ui.board import strip
from inspector.ui.context import escape
from inspector.ui.replay import replay_player
from inspector.ui.steering import steering
from inspector.views.replay import replay

EXAMPLES: tuple[tuple[str, str, str], ...] = (
    ("(x + y)²", "(x + y)**2", "x = 1, y = 2"),
    ("x² + 2x + 1", "x**2 + 2*x + 1", "x = 3"),
    ("x used twice", "a = x * y; a * x", "x = 2, y = 3"),
    ("A neuron", "h = sigmoid(w * x + b); (h - target)**2", "w = 0.5, x = 2, b = -1, target = 1"),
    ("Broadcasting", "(a * b).sum()", "a = [[1, 2, 3], [4, 5, 6]], b = [1, 0, -1]"),
    ("Matrix product", "(A @ B).sum()", "A = [[1, 2], [3, 4]], B = [[5, 6], [7, 8]]"),
    ("Cross-entropy", "F.cross_entropy(z, tensor([2]))", "z = [[2, 1, 0.1]]"),
    ("A NaN is born", "sqrt(x) * y", "x = 0, y = 0"),
    (
        "A large layer",
        "h = tanh(X @ W); (h @ v).pow(2).mean()",
        "X = randn(64, 32), W = randn(32, 48) / 6, v = randn(48)",
    ),
)
_SOURCES = {"expression": "Expression", "run": "Step of the run"}


@dataclass(slots=True)
class _State:
    """What one browser tab replays; at first what its link names."""

    source: str
    expression: str
    inputs: str
    at: int
    stop: str


def replay_page() -> None:
    """Draws the page."""
    shared().warm()
    state = _state()
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.subheader("Backward, one node at a time", width="content")
        state.source = st.segmented_control(
            "Source", list(_SOURCES), default=state.source, format_func=_SOURCES.__getitem__,
            required=True, key="replay/source", label_visibility="collapsed",
        )  # fmt: skip
    if state.source == "run":
        _run_part(state)
    else:
        _expression_part(state)


def choose_example(number: int) -> bool:
    """Puts the example of that number, from 1, on the page; whether there is one."""
    if not 1 <= number <= len(EXAMPLES) or _state().source != "expression":
        return False
    _load(_state(), number - 1)
    return True


def _state() -> _State:
    if "replay" not in st.session_state:
        link = st.query_params
        source = link.get("source", "expression")
        at = link.get("at", "0")
        st.session_state["replay"] = _State(
            source if source in _SOURCES else "expression",
            link.get("expression", EXAMPLES[0][1]),
            link.get("inputs", EXAMPLES[0][2]),
            int(at) if at.isdecimal() else 0,
            "nonfinite" if link.get("stop") == "nonfinite" else "",
        )
    state: _State = st.session_state["replay"]
    return state


def _link(state: _State, **more: str) -> None:
    """Keeps the address bar at exactly this view."""
    wanted = {"source": state.source, "at": str(state.at), **more}
    for name in ("expression", "inputs", "captured"):
        if name not in wanted and name in st.query_params:
            del st.query_params[name]
    for name, value in wanted.items():
        if st.query_params.get(name) != value:
            st.query_params[name] = value


# ---------------------------------------------------------------- an expression


def _load(state: _State, place: int) -> None:
    _, state.expression, state.inputs = EXAMPLES[place]
    state.at, state.stop = 0, ""
    st.session_state["replay/expression"] = state.expression
    st.session_state["replay/inputs"] = state.inputs


def _expression_part(state: _State) -> None:
    known = next(
        (i for i, e in enumerate(EXAMPLES) if e[1:] == (state.expression, state.inputs)), None
    )
    st.session_state["replay/example"] = known
    st.pills(
        "Examples", range(len(EXAMPLES)), key="replay/example",
        format_func=lambda place: EXAMPLES[place][0], label_visibility="collapsed",
        on_change=lambda: _picked(state),
    )  # fmt: skip
    st.session_state["replay/expression"] = state.expression
    st.session_state["replay/inputs"] = state.inputs
    left, right = st.columns([0.55, 0.45])
    left.text_input(
        "Expression", key="replay/expression", on_change=lambda: _typed(state),
        label_visibility="collapsed", placeholder="h = tanh(w * x); h**2",
    )  # fmt: skip
    right.text_input(
        "Inputs", key="replay/inputs", on_change=lambda: _typed(state),
        label_visibility="collapsed", placeholder="w = 0.5, x = [1, 2]",
    )  # fmt: skip
    document, problem = _evaluated(state.expression, state.inputs)
    if document is None:
        st.error(escape(problem), icon=":material/error:")
        _link(state, expression=state.expression, inputs=state.inputs)
        return
    more = {"expression": state.expression, "inputs": state.inputs}
    _player(state, document, more)


def _picked(state: _State) -> None:
    place = st.session_state["replay/example"]
    if place is not None:
        _load(state, place)


def _typed(state: _State) -> None:
    state.expression = st.session_state["replay/expression"]
    state.inputs = st.session_state["replay/inputs"]
    state.at, state.stop = 0, ""


@st.cache_data(max_entries=64, show_spinner="Computing …")
def _evaluated(expression: str, inputs: str) -> tuple[dict[str, Any] | None, str]:
    """The recorded pass, or one sentence why there is none."""
    snippet = (
        "from inspector.autograd.expression import record_expression\n"
        "from inspector.lab.plots import document\n"
        f"document('backward', record_expression({expression!r}, {inputs!r}))\n"
    )
    try:
        report = shared().run(snippet)
    except InspectorError as error:
        return None, str(error)
    if report.stopped:
        return None, report.stopped
    raised = report.error
    if raised is not None:
        if raised.kind == "InspectorError":
            return None, raised.message
        return None, f"{raised.kind}: {raised.message} {raised.explanation}".strip()
    found = [plot["document"] for plot in report.plots if plot["kind"] == "backward"]
    return (found[0], "") if found else (None, "Nothing was recorded; try it again.")


# ---------------------------------------------------------------- a run


def _run_part(state: _State) -> None:
    name = st.session_state.get("run")
    if name is None:
        st.info("There is no run yet: start one on the Start page, or step through an expression.")
        return
    strip(run=name, key=f"strip/{name}")
    with context.opened(name) as run:
        live = context.is_live(run)
        steps = [step for step, _ in run.documents("backward")]
        modules = _modules(run)
        step = _run_head(state, run, steps, modules, live=live)
        document = None if step is None else run.document("backward", step)
    with st.sidebar:
        steering(name, live=live)
    if live:
        _follow(name, len(steps))
    if document is None:
        st.info(
            "No backward pass of this run has been recorded: ask for one while it goes on. To "
            "catch a NaN, ask before it comes."
        )
        _link(state)
        return
    _player(state, document, {"captured": str(step)})


def _run_head(
    state: _State, run: Run, steps: list[int], modules: list[str], *, live: bool
) -> int | None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        step = max(steps, default=None)
        key = f"replay/{run.name}/step"
        newest = f"{key}/newest"
        if st.session_state.setdefault(newest, step) != step:
            st.session_state[newest] = st.session_state[key] = step
            state.at, state.stop = 0, _break_of(run, step)
        if steps:
            wanted = st.query_params.get("captured", "")
            if key not in st.session_state and wanted.isdecimal() and int(wanted) in steps:
                st.session_state[key] = int(wanted)
            step = st.selectbox(
                "Recorded at", sorted(steps, reverse=True), key=key, width=150,
                format_func=lambda s: f"step {s:,}", on_change=lambda: _rewind(state),
            )  # fmt: skip
        if live:
            module = st.selectbox(
                "Check by finite differences", ["", *modules], key=f"replay/{run.name}/module",
                width=220, format_func=lambda path: path or "each node, no module",
            )  # fmt: skip
            wanted_module = {"module": module} if module else {}
            if st.button("Record the next step", key="replay/next"):
                _ask(run, wanted_module)
            if st.button(
                "Record when NaN or infinity comes", key="replay/nonfinite",
                icon=":material/bug_report:",
                help="Watches each step until a gradient is not finite, and keeps that one.",
            ):  # fmt: skip
                _ask(run, {"when": "nonfinite", **wanted_module})
    return step


def _break_of(run: Run, step: int | None) -> str:
    document = None if step is None else run.document("backward", step)
    return "nonfinite" if document and document.get("nonfinite") else ""


def _rewind(state: _State) -> None:
    state.at, state.stop = 0, ""


def _modules(run: Run) -> list[str]:
    document = run.document("modules") or {}
    return [str(module["path"]) for module in document.get("modules", []) if module["path"]]


def _ask(run: Run, wanted: dict[str, str]) -> None:
    try:
        with closing(ControlWriter(run.path)) as writer:
            writer.send(Command(name="capture_backward", value=wanted or None))
    except StoreError as error:
        st.toast(escape(str(error)), icon="⚠️")
    else:
        when = "when it comes" if wanted.get("when") else "when the step is done"
        st.toast(f"Asked for; it appears here {when}.")


def _follow(name: str, seen: int) -> None:
    """Shows a new recording as soon as the run has stored it, and when the run ends."""

    def look() -> None:
        with context.opened(name) as run:
            if len(run.documents("backward")) != seen or not context.is_live(run):
                st.rerun()

    st.fragment(look, run_every="1s")()


# ---------------------------------------------------------------- both


def _player(state: _State, document: dict[str, Any], link: dict[str, str]) -> None:
    view = replay(document)
    for note in view["notes"]:
        st.caption(escape(note))
    if not view["steps"]:
        return

    def player() -> None:
        at = replay_player(
            view, at=state.at, stop=state.stop, presenter=presenter.on(), key="replay/player"
        )
        if at is not None:
            state.at, state.stop = at, ""
        _link(state, **link)

    st.fragment(player)()
    if document.get("module_check"):
        _module_check(document["module_check"])


def _module_check(check: dict[str, Any]) -> None:
    with st.container(border=True):
        st.markdown(f"**Module {escape(check['module'])} by finite differences in float64**")
        if check["reason"]:
            st.caption(escape(check["reason"]))
            return
        verdict = ":green[✓ agrees]" if check["agrees"] else ":red[✗ differs]"
        st.markdown(f"{verdict} with autograd: relative difference {short(check['difference'], 2)}")
        rows = [
            {
                "gradient of": one["name"],
                "numeric": _first(one["numeric"]),
                "analytic": _first(one["analytic"]),
                "relative difference": one["difference"],
                "how": "along a random direction" if one["direction"] else "element by element",
            }
            for one in check["inputs"]
        ]
        st.dataframe(
            rows, hide_index=True, height="content",
            column_config={
                "relative difference": st.column_config.NumberColumn(format="scientific")
            },
        )  # fmt: skip


def _first(values: list[Any]) -> str:
    """The first few numbers of a gradient."""
    shown = ", ".join(short(v, 6) if isinstance(v, float) else str(v) for v in values[:4])
    return shown if len(values) <= 4 else f"{shown}, …"
