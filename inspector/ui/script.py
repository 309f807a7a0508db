"""What Streamlit runs for every visit; ``app.py`` names this file."""

from inspector.ui import shell

shell.main()
