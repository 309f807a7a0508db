"""Whatever a snippet does, one sentence comes back and the next one runs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import psutil
import pytest

from inspector.lab import sandbox as sandbox_module
from inspector.lab.report import Report
from inspector.lab.sandbox import Limits, Sandbox

linux = pytest.mark.skipif(sys.platform != "linux", reason="the limit is enforced on Linux")


SECRET = "SECRET_OF_MINE"  # set by conftest before the child starts
HASTY = Limits(seconds=1)


def alive(sandbox: Sandbox) -> bool:
    return sandbox.run("answer = 6 * 7").value("answer") == 42


@pytest.mark.parametrize(
    ("snippet", "sentence"),
    [
        ("while True: pass", "stopped after 1 seconds"),
        ("import time; time.sleep(1000)", "stopped after 1 seconds"),
        ("import threading; threading.Event().wait()", "stopped after 1 seconds"),
        ("while True: print('again')", "stopped after 1 seconds"),
        ("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass",
         "stopped after 1 seconds"),
    ],
)  # fmt: skip
def test_what_never_ends_is_stopped(sandbox: Sandbox, snippet: str, sentence: str) -> None:
    report = sandbox.run(snippet, limits=HASTY)
    assert sentence in report.stopped
    assert report.error is None
    assert report.printed.startswith("again\n") == ("again" in snippet)
    assert alive(sandbox)


@pytest.mark.parametrize(
    ("snippet", "sentence"),
    [
        ("import os; os._exit(3)", "ended the Python process itself (exit code 3)"),
        ("import ctypes; ctypes.string_at(0)", "segmentation fault"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by the system"),
        ("import os; os.abort()", "an abort"),
    ],
)
def test_a_crash_is_one_sentence(sandbox: Sandbox, snippet: str, sentence: str) -> None:
    report = sandbox.run(snippet)
    assert sentence in report.stopped
    assert "\n" not in report.stopped
    assert alive(sandbox)


def test_sys_exit_keeps_what_was_there_before(sandbox: Sandbox) -> None:
    report = sandbox.run("import sys\nx = 5\nprint(x)\nsys.exit(2)\nx = 6")
    assert "sys.exit(2)" in report.stopped
    assert report.value("x") == 5
    assert report.printed == "5\n"


@linux
@pytest.mark.parametrize(
    "snippet",
    [
        "import torch\nbig = torch.empty(2 * 1024**3, dtype=torch.uint8)",
        "x = 1\nbig = bytearray(2 * 1024**3)",
        "import numpy\nbig = numpy.ones(2 * 1024**3 // 8)",
        "rows = []\nwhile True: rows.append(bytearray(10**7))",
    ],
)
def test_two_gigabytes_are_refused(sandbox: Sandbox, snippet: str) -> None:
    report = sandbox.run(snippet)
    assert report.error is not None
    assert report.error.line == 2
    assert "the lab's memory limit" in report.error.explanation
    assert alive(sandbox)


@linux
def test_half_a_gigabyte_is_fine(sandbox: Sandbox) -> None:
    report = sandbox.run("import torch\nn = torch.ones(512 * 1024**2, dtype=torch.uint8).numel()")
    assert report.ok
    assert report.value("n") == 512 * 1024**2


def test_infinite_recursion_is_explained(sandbox: Sandbox) -> None:
    report = sandbox.run("def f(n):\n    return f(n + 1)\n\nf(0)")
    assert report.error is not None
    assert report.error.kind == "RecursionError"
    assert report.error.line == 2
    assert "calls itself" in report.error.explanation


def test_huge_output_is_cut_and_said_so(sandbox: Sandbox) -> None:
    report = sandbox.run("print('a' * 10**8)\nend = True")
    assert report.ok
    assert report.value("end") is True
    assert report.printed == "a" * sandbox.limits.printed
    assert any("cut" in note for note in report.notes)


def test_what_is_written_past_python_does_not_reach_the_channel(sandbox: Sandbox) -> None:
    report = sandbox.run(
        "import os\nfor fd in (0, 1, 2): os.write(fd, b'{\"ended\": 0}\\n')\nx = 1"
    )
    assert report.ok
    assert report.value("x") == 1


def test_snippets_do_not_see_each_other_or_the_environment(sandbox: Sandbox) -> None:
    sandbox.run("import torch\ntorch.set_default_dtype(torch.double)\ntorch.left = 1")
    report = sandbox.run(
        "import os, torch\nleft = hasattr(torch, 'left')\n"
        "dtype = str(torch.zeros(1).dtype)\nnames = sorted(os.environ)\nfiles = os.listdir()"
    )
    assert report.value("dtype") == "torch.float32"
    assert report.value("left") is False
    assert SECRET not in report.value("names")


def test_files_go_to_a_folder_that_is_gone_afterwards(sandbox: Sandbox) -> None:
    report = sandbox.run("import os\nopen('note', 'w').write('x')\nfolder = os.getcwd()")
    assert report.ok
    assert not os.path.exists(report.value("folder"))  # noqa: PTH110


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX")
def test_what_a_snippet_started_goes_with_it(sandbox: Sandbox) -> None:
    report = sandbox.run(
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "number = child.pid"
    )
    with pytest.raises(ProcessLookupError):
        for _ in range(200):
            os.kill(report.value("number"), 0)
            sandbox.run("")


def test_syntax_errors_have_their_line(sandbox: Sandbox) -> None:
    report = sandbox.run("x = 1\ny = (2")
    assert report.error is not None
    assert (report.error.kind, report.error.line) == ("SyntaxError", 2)


def test_a_report_survives_json(sandbox: Sandbox) -> None:
    report = sandbox.run("import torch\nx = torch.ones(2, requires_grad=True)\nx.sum().backward()")
    assert Report.from_dict(report.to_dict()) == report


def test_closing_ends_the_child_and_the_next_run_starts_another(sandbox: Sandbox) -> None:
    sandbox.warm()
    sandbox.close()
    sandbox.close()
    assert alive(sandbox)


@pytest.mark.parametrize(
    "snippet",
    [
        "text = '\\ud800'\nprint(text)",
        "many = 10**5000\nnothing = float('nan')",
        "loop = [1]\nloop.append(loop)",
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E()",
        "class Odd:\n    def __getattr__(self, name): raise ValueError(name)\nodd = Odd()",
        "raise KeyboardInterrupt",
        "import torch\nwith torch.inference_mode(): x = torch.ones(2) * 2",
        "import torch\nclass T(torch.Tensor): pass\nx = torch.ones(3).as_subclass(T)",
        "import torch\nx = torch.tensor([1 + 2j], requires_grad=True)\nx.abs().sum().backward()",
        "import torch\nx = torch.eye(3).to_sparse().requires_grad_()\nx.sum().backward()",
        "import torch\nx = torch.ones(2, device='meta', requires_grad=True)\ny = x * 2",
        "import torch\nx = torch.ones(2, requires_grad=True)\n"
        "torch.autograd.grad(outputs=x.sum(), inputs=x)",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 1\n"
        "import inspect, pickle\npickle.loads(pickle.dumps(A()))\ninspect.getsource(A)",
    ],
)
def test_odd_things_are_described_or_left_out(sandbox: Sandbox, snippet: str) -> None:
    report = sandbox.run(snippet)
    assert report.stopped == ""
    assert (report.error is not None) == ("raise E" in snippet or "raise K" in snippet)
    report.printed.encode()


def test_platforms_that_cannot_fork_keep_a_fresh_process_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boot = sandbox_module._BOOT.replace(
        "from inspector.lab.child import main",
        "from inspector.lab import child; child.FORKS = False; main = child.main",
    )
    monkeypatch.setattr(sandbox_module, "_BOOT", boot)
    fresh = Sandbox(Limits(seconds=20))
    try:
        first, second = (fresh.run("import os\nme = os.getpid()").value("me") for _ in range(2))
        assert first != second
        assert "stopped after 1 seconds" in fresh.run("while True: pass", limits=HASTY).stopped
        assert alive(fresh)
    finally:
        fresh.close()


@linux
def test_nothing_is_left_when_the_app_is_killed() -> None:
    program = (
        "from inspector.lab.sandbox import Sandbox\nimport sys\ns = Sandbox()\ns.warm()\n"
        "print(s.run('import os\\nme = os.getppid()').value('me'), flush=True)\n"
        "s.run('while True: pass')"
    )
    app = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert app.stdout is not None
    warm = psutil.Process(int(app.stdout.readline()))
    deadline = time.monotonic() + 20
    while not (running := warm.children()) and time.monotonic() < deadline:
        time.sleep(0.02)
    app.kill()
    app.wait()
    gone, left = psutil.wait_procs([warm, *running], timeout=20)
    assert left == []
    assert len(gone) >= 2
    app.stdout.close()


def test_a_snippet_is_stopped_by_hand_and_the_next_one_runs(sandbox: Sandbox) -> None:
    stop, reports = threading.Event(), []
    snippet = "print('begun', flush=True)\nwhile True: pass"
    thread = threading.Thread(target=lambda: reports.append(sandbox.run(snippet, stop=stop)))
    thread.start()
    late = threading.Event()
    late.set()
    assert "before its turn" in sandbox.run("print(1)", stop=late).stopped
    threading.Timer(0.5, stop.set).start()
    thread.join(20)
    (report,) = reports
    assert report.stopped.startswith("You stopped the snippet after ")
    assert sandbox.run("print(2)").printed == "2\n"


def test_a_run_that_is_stopped_at_once_leaves_the_warm_process_alone(sandbox: Sandbox) -> None:
    assert sandbox.run("print(0)").printed == "0\n"
    warm = sandbox._child
    stop = threading.Event()
    stop.set()
    assert sandbox.run("while True: pass", stop=stop).stopped.startswith("You stopped")
    if sys.platform == "linux":
        assert sandbox._child is warm
    assert sandbox.run("print(1)").printed == "1\n"
