"""The panel: prepare in the background, then download; and the command line's sentences."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from inspector.exports.background import Job
from inspector.exports.formats import FORMATS


def app(folder: str, name: str) -> None:
    from pathlib import Path

    from inspector.ui import export

    export.runs_dir = lambda: Path(folder)
    export.export_panel(name)


def opened(path: Path) -> AppTest:
    test = AppTest.from_function(app, args=(str(path.parent), path.name), default_timeout=30)
    return test.run()


def wait(job: Job) -> None:
    job._process.wait(60)


def test_panel_prepares_in_the_background_and_offers_the_file(one_rank: Path) -> None:
    test = opened(one_rank)
    assert [tab.label for tab in test.tabs] == ["Model", "Telemetry", "Report", "Configuration"]
    assert any("recorded by your own script" in one.value for one in test.info)
    test.button(key=f"export/{one_rank.name}/csv/long/prepare").click().run()
    job = test.session_state["exports"][one_rank.name]["csv/long"]
    assert not test.exception
    wait(job)
    test.run()
    (offered,) = test.get("download_button")
    assert offered.proto.label == "Download"
    outcome = job.outcome()
    assert outcome is not None and outcome.path is not None
    assert outcome.path.read_text().startswith('"rank","step","wall"')
    assert any("one for each measurement" in one.value for one in test.caption)


def test_a_file_that_is_being_downloaded_outlives_the_next_one(one_rank: Path) -> None:
    test = opened(one_rank)
    again = f"export/{one_rank.name}/csv/long/prepare"
    paths = []
    for _ in range(3):
        test.button(key=again).click().run()
        job = test.session_state["exports"][one_rank.name]["csv/long"]
        wait(job)
        outcome = job.outcome()
        assert outcome is not None and outcome.path is not None
        paths.append(outcome.path)
        del job
        test.run()
    gc.collect()
    assert [path.exists() for path in paths] == [False, True, True]


def test_refusal_is_shown_as_a_sentence(one_rank: Path) -> None:
    job = Job(one_rank, "config")
    wait(job)
    outcome = job.outcome()
    assert outcome is not None and outcome.path is None
    assert outcome.refusal.startswith("Run single was recorded by a script of yours")


def test_folders_are_offered_as_one_zip(one_rank: Path) -> None:
    import zipfile

    job = Job(one_rank, "tensorboard")
    wait(job)
    outcome = job.outcome()
    assert outcome is not None and outcome.path is not None
    with zipfile.ZipFile(outcome.path) as packed:
        assert any("tfevents" in name for name in packed.namelist())


def test_cancelling_ends_the_child(one_rank: Path) -> None:
    job = Job(one_rank, "html")
    job.cancel()
    job.cancel()
    outcome = job.outcome()
    assert outcome is not None and outcome.refusal == "Cancelled."
    assert job._process.returncode is not None


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "inspector.cli", *arguments],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_command_line_says_where_and_refuses_in_one_sentence(
    one_rank: Path, tmp_path: Path
) -> None:
    folder = ("--run-dir", str(one_rank.parent))
    done = run_command(
        "export", one_rank.name, *folder, "--to", "csv", "--out", str(tmp_path), "--json"
    )
    told = json.loads(done.stdout)
    assert told["path"] == str(tmp_path / "single.csv") and Path(told["path"]).is_file()
    wrong = run_command("export", one_rank.name, *folder, "--to", "exe")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1
    assert "choose from state_dict, safetensors" in wrong.stderr
    nothing = run_command("import", "tensorboard", str(tmp_path), "--run-dir", str(tmp_path / "r"))
    assert nothing.returncode == 2 and nothing.stderr.startswith("torch-inspector: Expected a Ten")


@pytest.mark.parametrize("key", ["csv", "tensorboard", "html", "config"])
def test_telemetry_and_report_do_without_torch(key: str, one_rank: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from inspector.errors import ExportError\n"
        "from inspector.exports.export import export\n"
        "from inspector.store.reader import Run\n"
        f"try: print(export(Run({str(one_rank)!r}), {key!r}, Path({str(tmp_path / 'out')!r})))\n"
        "except ExportError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert key == "config" or (tmp_path / "out").exists()
    assert FORMATS[key].maker.split(":")[0] != "inspector.exports.model.programs"
