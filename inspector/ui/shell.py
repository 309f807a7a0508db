"""What every page shares: navigation on top, run picker and steering panel at the side."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from inspector.store.reader import RunSummary
from inspector.ui import context, presenter, warm
from inspector.ui.board import strip
from inspector.ui.steering import steering
from inspector.views.runs import labels as run_labels

_ASSETS = Path(__file__).parent / "assets"
# Streamlit leaves 5 rem at each side and 6 rem on top: too much on a projector.
_STYLE = """<style>
.stMainBlockContainer { padding: 4rem 2rem 2rem 2rem; }
[data-testid="stSidebarHeader"] { height: 2.2rem; min-height: 0; margin-bottom: 0; }
[data-testid="stSidebarUserContent"] { padding-bottom: 1rem; }
[data-testid="stSidebar"] details [data-testid="stButtonGroup"] button { padding: 0 0.5rem; }
/* All pages stand in one row at 1280 pixels, beside the panel at the side. Streamlit keeps 200
   pixels for a Stop of its own, which stops drawing and would be taken for the run's. */
[data-testid="stToolbar"] > div > div:has(> [data-testid="stMainMenu"]) { min-width: 5rem; }
[data-testid="stToolbar"] [data-testid="stStatusWidget"] button { display: none; }
@media (max-width: 1420px) {
  [data-testid="stTopNav"] .rc-overflow-item > div { margin-right: 0; }
  [data-testid="stTopNav"] [data-testid="stTopNavLink"] { padding: 0 0.375rem; }
}
[data-testid="stTopNav"] .rc-overflow-item:is(:has([href*="/gradients"]), :has([href*="/graph"]),
  :has([href*="/events"])) > div { padding-left: 0.5rem; } /* kinds of pages, a little apart */
@media (max-width: 700px) { /* a page at 200 %, or a telephone */
  .stMainBlockContainer [role="radiogroup"] { flex-wrap: wrap; }
  .stMainBlockContainer [data-testid="stButtonGroup"] { max-width: 100%; }
}
/* Streamlit says why a number is refused to screen readers only; everybody may read it. */
.stNumberInput span[id$="-validation-error"] { position: static !important; width: auto !important;
  height: auto !important; margin: 0.25rem 0 0 !important; clip: auto !important;
  white-space: normal !important; display: block; color: var(--st-red-text-color, #b3243a);
  font-size: 0.875rem; }
</style>"""

# file in pages/: title, whether the page looks at one run
PAGES = {
    "start": ("Start", False),
    "live": ("Live", True),
    "findings": ("Findings", True),
    "gradients": ("Gradients", True),
    "activations": ("Activations", True),
    "updates": ("Updates", True),
    "modules": ("Modules", True),
    "health": ("Hooks", True),
    "graph": ("Graph", True),
    "backward": ("Backward", False),
    "lab": ("Lab", False),
    "break_it": ("Break it", True),
    "events": ("Events", True),
    "runs": ("Runs", False),
    "compare": ("Compare", False),
}


def pages_dir() -> Path:
    """``pages/`` beside ``app.py``: in a checkout at its root, in a wheel inside the package."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "bundle" / "pages", package.parent / "pages"):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(
        f"Expected the app's pages beside {package}; reinstall torch-inspector."
    )


def main() -> None:
    """Draws the frame and the page that the address names."""
    st.set_page_config(
        page_title="torch-inspector",
        page_icon=str(_ASSETS / "icon.svg"),
        layout="wide",
        initial_sidebar_state="collapsed" if presenter.on() else "auto",
        menu_items={"About": "A live debugger for PyTorch training."},
    )
    st.html(_STYLE)
    warm.start()
    pages = {
        name: st.Page(
            pages_dir() / f"{name}.py",
            title=title,
            url_path=name,
            default=name == "start",
        )
        for name, (title, _) in PAGES.items()
    }
    st.session_state["pages"] = pages
    page = st.navigation(list(pages.values()), position="top")
    runs = context.summaries()
    name = context.selected(runs)
    if name is not None:
        st.session_state["run"] = name
        st.query_params["run"] = name
    presenter.presenter(next(key for key, candidate in pages.items() if candidate is page))
    looks_at_run = any(PAGES[key][1] for key, candidate in pages.items() if candidate is page)
    with st.sidebar:
        _sidebar(runs, name, looks_at_run)
        known = frozenset(summary.name for summary in runs)
        st.fragment(_notice_new, run_every="5s" if runs else "2s")(known)
    if looks_at_run and name is None:
        _no_run(pages["start"])
    elif looks_at_run:
        strip(run=str(name), key=f"strip/{name}")
        page.run()
    else:
        page.run()


def _sidebar(runs: list[RunSummary], name: str | None, looks_at_run: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("#### torch-inspector")
        presenter.toggle_button()
    if not runs or name is None:
        st.caption("Start a run; it can be steered from here.")
        return
    by_name = {summary.name: summary for summary in runs}
    st.session_state["run_picker"] = name
    labels = run_labels(list(by_name))
    st.selectbox(
        "Run",
        list(by_name),
        format_func=lambda name: labels.get(name, name),
        key="run_picker",
        on_change=lambda: context.select(st.session_state["run_picker"]),
        label_visibility="collapsed",
    )
    if looks_at_run:
        steering(name, live=by_name[name].status in context.LIVE)


def _notice_new(known: frozenset[str]) -> None:
    """Draws the page again when a script, or another tab, has begun a run."""
    if not known.issuperset(summary.name for summary in context.summaries()):
        st.rerun()


def _no_run(start: st.Page) -> None:
    st.info(
        "Nothing has been recorded yet. Start a run, or call `inspector.watch(model, optimizer)` "
        "in a script of your own."
    )
    st.page_link(start, label="Go to Start", icon=":material/rocket_launch:")
