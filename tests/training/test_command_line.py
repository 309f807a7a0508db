"""The command ``torch-inspector``, called in this process."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from inspector import __main__ as entry
from inspector import cli, doctor, headless
from inspector.config import RunConfig
from inspector.errors import InspectorError
from inspector.server import launch
from inspector.store.reader import Run
from inspector.training import runner


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)
    return result.exit_code, result.output


def test_a_headless_run_ends_with_one_line(tmp_path: Path) -> None:
    code, output = call(
        "train", "--headless", "--steps", "30", "--run-dir", str(tmp_path), "--name", "mine",
        "--seed", "7", "--set", "lr=0.2", "--set", "controls.clip=norm",
    )  # fmt: skip
    assert code == 0
    assert output.strip().splitlines()[-1].startswith("mine finished after 30 steps, loss ")
    run = Run(tmp_path / "mine")
    made = RunConfig.from_dict(run.config)
    assert (made.steps, made.seed, made.lr, made.controls.clip) == (30, 7, 0.2, "norm")
    # what every reader needs: the loss, a gradient norm for each parameter, shapes
    assert len(run.series("loss").steps) == 30
    keys = run.keys()
    gradients = {key.subject for key in keys if key.quantity == "grad_norm"}
    assert gradients == {
        f"{name}.{kind}"
        for name in ("hidden.0.0", "hidden.1.0", "head")
        for kind in ("weight", "bias")
    }
    document = run.document("modules")
    assert document is not None
    shapes = {module["path"]: module["outputs"] for module in document["modules"]}
    assert shapes["head"] == [[64, 10]]


def test_a_batch_system_that_ends_the_job_ends_the_run_in_order(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    name = runner.start(RunConfig(epochs=100_000, torch_threads=1), tmp_path, "job")

    def terminate() -> None:
        with Run(tmp_path / name) as run:
            until = time.monotonic() + 60
            while signal.getsignal(signal.SIGTERM) == before or not len(run.series("loss")):
                assert time.monotonic() < until
                time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    ending = threading.Thread(target=terminate)
    ending.start()
    assert headless.follow(tmp_path / name) == 0
    ending.join()
    assert signal.getsignal(signal.SIGTERM) == before
    with Run(tmp_path / name) as run:
        assert run.status == "stopped"
    assert (tmp_path / name / "blobs" / "checkpoints").is_dir()


def test_a_headless_preset_runs_at_full_speed_and_never_waits() -> None:
    made = cli._configuration("nan", [], headless=True, steps=None, seed=None)
    assert made.controls.max_steps_per_s is None
    assert made.controls.on_nonfinite == "continue"
    kept = cli._configuration("nan", [], headless=False, steps=None, seed=None)
    assert kept.controls.on_nonfinite == "pause"


def test_a_configuration_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"config": RunConfig(model="lenet", steps=5).to_dict()}))
    made = cli._configuration(str(path), ["batch_size=8"], headless=True, steps=None, seed=None)
    assert made == RunConfig(model="lenet", steps=5, batch_size=8)


def test_a_failed_run_has_exit_code_1(tmp_path: Path, user_model) -> None:  # type: ignore[no-untyped-def]
    user_model("class Mine(nn.Module):\n    def __init__(self):\n        raise KeyError('x')\n")
    code, output = call(
        "train", "--headless", "--run-dir", str(tmp_path / "runs"), "--set", "model=mine"
    )
    assert code == 1
    assert "failed after 0 steps; Run failed in build: KeyError: 'x'" in output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "digit"], "neither a preset nor a file named 'digit'; the presets are digits"),
        (["train", "missing.json"], "a configuration file at missing.json"),
        (["train", "--headless", "--set", "lr"], "Expected key=value"),
        (["train", "--headless", "--set", "data=spiral"], "no data named 'spiral'"),
    ],
)
def test_refusals_are_one_sentence(
    arguments: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["torch-inspector", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("torch-inspector: ")
    assert sentence in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "runs_dir", "port"),
    [
        ([], "runs", None),
        (["elsewhere"], "elsewhere", None),
        (["--port", "9001"], "runs", 9001),
        (["ui", "elsewhere", "--no-browser"], "elsewhere", None),
    ],
)
def test_without_a_command_the_app_is_served(
    arguments: list[str], runs_dir: str, port: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[tuple[Path, dict[str, object]]] = []
    monkeypatch.setattr(launch, "serve", lambda path, **options: served.append((path, options)))
    assert call(*arguments)[0] == 0
    ((path, options),) = served
    assert path == Path(runs_dir)
    assert options["port"] == port
    assert options["open_browser"] == ("--no-browser" not in arguments)


def test_a_slip_in_a_command_is_no_folder_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    served: list[Path] = []
    monkeypatch.setattr(launch, "serve", lambda path, **_: served.append(path))
    with pytest.raises(InspectorError, match=r"did you mean train\?"):
        call("trian")
    (tmp_path / "trian").mkdir()
    assert call("trian")[0] == 0
    assert call("other")[0] == 0
    assert served == [Path("trian"), Path("other")]


def test_ctrl_c_while_the_command_loads_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupted)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 130


def test_a_terminal_that_cannot_show_an_arrow_is_no_reason_to_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    monkeypatch.setattr(cli, "app", lambda: sys.stdout.write("run → here"))
    cli.main()
    sys.stdout.flush()
    assert shown.getvalue().strip() == b"run ? here"


def test_help_lists_the_commands() -> None:
    code, output = call("--help")
    assert code == 0
    assert all(name in output for name in ("ui", "train", "doctor"))


def test_doctor_is_content_here() -> None:
    code, output = call("doctor")
    assert code == 0
    assert "Everything needed is here." in output
    assert "torch:" in output


def test_doctor_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_NEEDED", {"torch": (99,), "no-such-package": (1, 2)})
    console = Console(record=True, width=200)
    assert doctor.report(console) == 1
    text = console.export_text()
    assert "WRONG torch:" in text
    assert "→ pip install 'torch>=99'" in text
    assert "WRONG no-such-package: not installed" in text
    assert "2 things to mend." in text
