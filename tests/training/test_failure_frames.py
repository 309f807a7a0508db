"""Tracebacks cut to the user's own lines; warnings of anomaly detection read."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

import torch
from torch import nn

import inspector
from inspector.frames import user_frames
from inspector.training.failures import born_in_backward, failure

LIBRARY = sysconfig.get_path("purelib")
PACKAGE = Path(inspector.__file__).parent


def frames(*files: str) -> list[traceback.FrameSummary]:
    return [traceback.FrameSummary(file, 1, "f", line="x") for file in files]


def files(*given: str) -> list[str]:
    return [frame.file for frame in user_frames(frames(*given))]


def test_only_the_users_own_frames_are_kept() -> None:
    loop, torch_file = f"{PACKAGE}/training/loop.py", f"{Path(torch.__file__).parent}/nn/x.py"
    assert files(loop, torch_file, "/home/me/net.py", torch_file) == ["/home/me/net.py"]
    assert files(loop, f"{PACKAGE}/bundle/sample_models/mlp.py") == [
        f"{PACKAGE}/bundle/sample_models/mlp.py"
    ]


def test_without_own_frames_those_of_other_libraries_are_kept() -> None:
    resnet = f"{LIBRARY}/torchvision/models/resnet.py"
    assert files(f"{PACKAGE}/training/loop.py", resnet) == [resnet]
    assert files(f"{PACKAGE}/training/loop.py") == []


def test_an_error_inside_a_library_module_names_the_module() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(4, 1))
    try:
        model(torch.zeros(1, 3))
    except RuntimeError as error:
        event = failure(error, model)
    assert (event.module, event.phase) == ("1", "forward")
    assert "mat1 and mat2" in event.message


def test_an_anomaly_warning_is_read() -> None:
    text = (
        "Error detected in LogBackward0. Traceback of forward call that caused the error:\n"
        f'  File "{PACKAGE}/training/loop.py", line 35, in train\n    outputs = model(inputs)\n'
        '  File "/home/me/net.py", line 7, in forward\n    return x.log()\n'
        " (Triggered internally at somewhere.cpp:108.)"
    )
    error = RuntimeError("Function 'LogBackward0' returned nan values in its 0th output.")
    event = born_in_backward(error, ["another warning", text], "paused")
    assert event is not None
    assert (event.op, event.file, event.line) == ("LogBackward0", "/home/me/net.py", 7)
    assert (event.code, event.policy) == ("return x.log()", "paused")
    assert event.text == "Non-finite gradient born in LogBackward0 (called at /home/me/net.py:7)."


def test_other_errors_are_no_anomalies() -> None:
    assert born_in_backward(RuntimeError("out of memory"), [], "paused") is None


def test_memory_that_runs_out_comes_with_advice() -> None:
    event = failure(torch.OutOfMemoryError("CUDA out of memory."))
    assert event.message == "CUDA out of memory. Choose a smaller batch_size."
