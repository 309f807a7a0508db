"""Fixtures that several rooms share: a real browser, the app as a person starts it, one thread."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.app.server import App
    from tests.app.tab import Tab

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests run only when asked for; the rest of the suite stays complete by default."""
    if config.option.markexpr or any("::" in argument for argument in config.args):
        return
    kept = [item for item in items if "slow" not in item.keywords]
    config.hook.pytest_deselected(items=[item for item in items if "slow" in item.keywords])
    items[:] = kept


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n``, a file stays in one process, and so do all browser tests: they share an app."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "browser" if file.endswith("_browser.py") else file

    return ByFile(config, log)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The system's Chromium; its absence is a failure in CI and a stated skip elsewhere."""
    path = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    if path is None:
        message = "no Chromium on the PATH; install it (apt install chromium) to run browser tests"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import expect, sync_playwright

    from tests.app.tab import PATIENCE

    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app as README starts it; earlier tests may have left runs in its folder, none alive."""
    from tests.app.server import App

    served = App(tmp_path_factory.mktemp("app") / "runs")
    yield served
    served.close()


@pytest.fixture(scope="module")
def tab(chromium: Any, app: App) -> Iterator[Tab]:
    """A tab of its own profile, in which the app has been opened by its link."""
    from tests.app.tab import open_tab

    app.still()
    opened = open_tab(chromium, app.base)
    opened.visit(app.link)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def settings_are_forgotten() -> Iterator[None]:
    """What one test has shown in this process says nothing to the next one."""
    yield
    from tests.app.in_process import forget

    forget()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Several threads add up small tensors in any order, and mostly wait for one another."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
