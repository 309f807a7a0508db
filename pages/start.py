"""The first screen: what is loaded, Start, and a gallery of presets."""

from inspector.ui.start import start_page

start_page()
