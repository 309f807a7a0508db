"""What one server process was started with: token, runs folder, who may name it."""

from __future__ import annotations

import os
import re
import secrets
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

from inspector.errors import ConfigError

RUNS_DIR_VARIABLE = "TORCH_INSPECTOR_RUNS_DIR"
TOKEN_VARIABLE = "TORCH_INSPECTOR_TOKEN"
_HOLDER = "_torch_inspector_server"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the server of this process.

    Attributes:
        token: secret that opens the app; it ends the printed link.
        runs_dir: folder whose runs are shown.
        hosts: host names, besides loopback, under which the app may be reached.
        any_address: whether it listens beyond loopback, so that its IP addresses are valid
            names too (an address cannot be rebound by DNS).
        open_browser: whether the link is opened once the server answers.
    """

    token: str = field(repr=False)
    runs_dir: Path = Path("runs")
    hosts: frozenset[str] = frozenset()
    any_address: bool = False
    open_browser: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{16,}", self.token):
            raise ConfigError(
                "The token must be 16 or more letters, digits, '-' or '_', but got one of "
                f"{len(self.token)} characters; leave {TOKEN_VARIABLE} unset to have one made."
            )


def configure(settings: Settings) -> Settings:
    """Makes these the settings of the process.

    They live in a module without a file: Streamlit's hot reload drops every module that has one.
    """
    holder = sys.modules.setdefault(_HOLDER, types.ModuleType(_HOLDER))
    holder.__dict__["settings"] = settings
    os.environ[RUNS_DIR_VARIABLE] = str(settings.runs_dir)
    return settings


def current() -> Settings:
    """The settings of the process; made from the environment where nobody configured any.

    The token leaves the environment, so that training processes do not inherit it.
    """
    holder = sys.modules.get(_HOLDER)
    if holder is not None and "settings" in holder.__dict__:
        found: Settings = holder.__dict__["settings"]
        return found
    token = os.environ.pop(TOKEN_VARIABLE, "") or secrets.token_urlsafe(32)
    runs_dir = Path(os.environ.get(RUNS_DIR_VARIABLE) or "runs")
    return configure(Settings(token=token, runs_dir=runs_dir))
