"""The app: ``streamlit run app.py`` or ``torch-inspector``.

The gate stands before everything; ``/live`` carries what moves; the script draws the pages.
"""

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

import inspector.ui
from inspector.server import addresses, assets, launch, live, settings
from inspector.server.gate import Gate

app = st.App(
    Path(inspector.ui.__file__).with_name("script.py"),
    routes=[live.route(lambda: settings.current().runs_dir), *assets.routes(), *addresses.routes()],
    middleware=[Middleware(Gate, settings=settings.current())],
    lifespan=launch.lifespan,
)
