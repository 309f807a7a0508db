"""Response headers: what a page of the app may load, and who may frame it (nobody)."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import streamlit


def inline_script_hashes(page: str) -> list[str]:
    """CSP sources for the inline scripts of an HTML page."""
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]


def content_security_policy(page: str) -> str:
    """The policy for Streamlit's ``index.html``.

    Streamlit loads components from ``blob:`` scripts, draws Graphviz with WebAssembly and styles
    with inline ``<style>`` elements. Pictures and connections stay on this server: text from a
    model or a file cannot call home even where it would be taken for markup.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' blob: 'wasm-unsafe-eval' {' '.join(inline_script_hashes(page))}",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "media-src 'self' blob:",
            "connect-src 'self'",
            "worker-src 'self' blob:",
            "manifest-src 'self'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


def _index_page() -> str:
    return (Path(streamlit.__file__).parent / "static" / "index.html").read_text("utf-8")


HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", content_security_policy(_index_page()).encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)
"""Added by the gate to every response."""
