"""A text file for a character model: each character is predicted from those before it."""

from __future__ import annotations

import numpy as np
import torch

from inspector.errors import ConfigError, DataError
from inspector.training.own.files import local_file
from inspector.training.samples import Source

_LARGEST = 64 << 20
_CHARACTERS = 4096


def load_text(path: str, *, length: int = 64) -> Source:
    """Pieces of ``length`` characters; the target is the piece one character further.

    Raises:
        ConfigError: the length cannot be used.
        DataError: the file is not UTF-8 text, or too short.
    """
    if length < 1:
        raise ConfigError(f"length of {path} must be 1 or more, but got {length}.")
    file = local_file(path, "text", largest=_LARGEST)
    content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"Expected UTF-8 text in {file}, but line {line} holds byte "
            f"0x{content[error.start]:02x}; convert the file."
        ) from error
    text = text.replace("\r\n", "\n")
    pieces = (len(text) - 1) // length
    if pieces < 2:
        raise DataError(
            f"Expected {2 * length + 1} characters or more in {file} for pieces of {length}, "
            f"but there are {len(text)}; take a longer text or a smaller length."
        )
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    characters, codes = np.unique(points, return_inverse=True)
    if len(characters) > _CHARACTERS:
        raise DataError(
            f"{file} is made of {len(characters)} different characters, more than the "
            f"{_CHARACTERS} that a character model can tell apart."
        )
    tokens = torch.from_numpy(codes.astype(np.int64))
    inputs = tokens[: pieces * length].view(pieces, length)
    targets = tokens[1 : pieces * length + 1].view(pieces, length)
    names = tuple(chr(point) for point in characters)
    return Source("sequence", "tokens", inputs, targets.clone(), names)
