"""The server that the app's own browser tests use."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "app"))
