"""A scalar that a script begins to record appears on the Live page, and a rank can be chosen."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from inspector.events import RunStarted
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from tests.app.server import App
from tests.app.tab import Tab

pytestmark = pytest.mark.browser


@pytest.fixture
def writers(app: App) -> Iterator[list[Writer]]:
    """Two ranks of a run that goes on."""
    path = create_run(app.runs_dir, "job", {"config": {}})
    made = [Writer(path, rank=rank) for rank in range(2)]
    for writer in made:
        writer.event(0, RunStarted())
    yield made
    for writer in made:
        writer.close()


def test_a_new_scalar_appears_while_the_run_goes_and_ranks_can_be_chosen(
    tab: Tab, writers: list[Writer]
) -> None:
    keys = (SeriesKey("loss"),)
    for rank, writer in enumerate(writers):
        for step in range(30):
            writer.append("scalar", step, keys, [1.0 + rank])
        writer.flush()
    tab.visit("live?run=job")
    legend = tab.page.locator(".card", has_text="Loss").first
    legend.get_by_text(re.compile(r"^1(\.000)?$")).first.wait_for()
    assert tab.page.get_by_text("reward", exact=True).count() == 0
    for step in range(30, 40):
        writers[0].append("own", step, (SeriesKey("reward"),), [0.5])
    writers[0].flush()
    tab.page.get_by_text("reward", exact=True).first.wait_for()
    second = tab.page.get_by_test_id("stButtonGroup").get_by_text("1", exact=True)
    tab.click(second, legend.get_by_text("2", exact=True))


def test_groups_of_the_same_rate_share_a_line_until_they_part(
    tab: Tab, writers: list[Writer]
) -> None:
    keys = tuple(SeriesKey(name) for name in ("loss", "lr", "lr/group 1", "lr/group 2"))
    for step in range(30):
        writers[0].append("scalar", step, keys, [1.0, 0.1, 0.02, 0.02])
    writers[0].flush()
    tab.visit(f"live?run={writers[0].path.parent.name}")
    entries = tab.page.locator(".card", has_text="Learning rate").locator(".entry:visible")
    tab.until(lambda: entries.count() == 2, "one entry for the two groups that share a rate")
    assert entries.all_inner_texts() == ["group 00.1", "group 1 and group 20.02"]
    for step in range(30, 40):
        writers[0].append("scalar", step, keys, [1.0, 0.1, 0.02, 0.03])
    writers[0].flush()
    tab.until(lambda: entries.count() == 3, "an entry for the group that has left")
    assert entries.nth(2).inner_text() == "group 20.03"
