"""A self-contained page: template, styles, scripts and figures in one HTML text."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

import jinja2
import plotly.offline

_HERE = files("inspector.exports.html")


def render(template: str, *, figures: dict[str, Any], **content: Any) -> str:
    """The page of a template.

    Args:
        figures: Plotly figures by the id of the element they are drawn into; traces may name a
            colour of the palette by ``"_color": index``. Plotly is put in only if there are any.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    data = _script_safe(json.dumps(figures, separators=(",", ":"), allow_nan=False))
    code = [f"const FIGURES = {data};\n{_text('page.js')}"]
    if figures:
        code.insert(0, plotly.offline.get_plotlyjs())
    return environment.get_template(template).render(
        **content, style=_text("page.css"), scripts=code, policy=_policy(code)
    )


def _policy(scripts: list[str]) -> str:
    """Only these scripts run, and nothing is loaded from anywhere."""
    digests = [
        base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in scripts
    ]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _script_safe(text: str) -> str:
    """JSON in a script element: names from a model must not close it."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _text(name: str) -> str:
    return (_HERE / name).read_text("utf-8")
