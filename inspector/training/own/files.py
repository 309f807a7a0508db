"""Paths that a user gives: local, regular, of a bounded size."""

from __future__ import annotations

from pathlib import Path

from inspector.errors import DataError, InspectorError

LARGEST_TABLE = 2 << 30
MEMORY = 4 << 30
"""Bytes of samples that are held in memory at most."""


def local_file(
    text: str,
    what: str,
    *,
    suffixes: tuple[str, ...] = (),
    largest: int = LARGEST_TABLE,
    error: type[InspectorError] = DataError,
) -> Path:
    """The path of a readable file on this machine.

    Args:
        what: what the file is for, in the messages.
        suffixes: that its name may end in; any if empty.
        largest: bytes.
        error: class of the exception.

    Raises:
        InspectorError: an address, a folder, a device, an empty or an oversized file.
    """
    if "://" in text:
        raise error(
            f"Expected a file with {what} on this machine, but got an address ({text}); "
            "download it first."
        )
    path = Path(text).expanduser()
    if not text or not path.is_file():
        kind = "a folder" if path.is_dir() and text else "nothing of that name"
        raise error(
            f"Expected a file with {what} at {text!r}, but there is {kind}; check the path."
        )
    if suffixes and path.suffix.lower() not in suffixes:
        raise error(f"Expected {what} in a file of {', '.join(suffixes)}, but got {path.name}.")
    size = path.stat().st_size
    if size == 0:
        raise error(f"Expected {what} in {path}, but the file is empty (0 bytes).")
    if size > largest:
        raise error(
            f"Expected at most {largest:,} bytes of {what}, but {path} has {size:,}; "
            "write a Dataset of your own that reads it in parts."
        )
    return path.resolve()
