"""The command ``torch-inspector`` begins here: Ctrl-C ends it quietly while it loads, too."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command; exit code 130 after Ctrl-C."""
    try:
        from inspector import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
