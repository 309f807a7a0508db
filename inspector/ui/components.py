"""Parts of a page that run in the browser: a script of the app's own, loaded once per tab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from inspector.server.assets import PREFIX

ASSETS = Path(__file__).parent / "assets"


def component(
    name: str, holder: str, script: str, *, view: str = "mount", styles: tuple[str, ...] = ()
) -> Any:
    """What draws the component; it takes ``key`` and ``data``.

    Args:
        holder: class of the element that it fills.
        script: file of the assets, which exports ``view``: from a component to what ends it.
        styles: files of the assets.
    """
    return st.components.v2.component(
        f"torch_inspector_{name}",
        html=f'<div class="{holder}"></div>',
        css="\n".join((ASSETS / style).read_text("utf-8") for style in styles),
        js=f"""export default function (component) {{
  const address = new URL("{PREFIX}/{script}", location.origin).href
  let [gone, cleanup] = [false, null]
  import(address).then((module) => {{ if (!gone) cleanup = module.{view}(component) }})
  return () => {{ gone = true; cleanup?.() }}
}}
""",
    )
