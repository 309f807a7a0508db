"""References to a user's own Python: ``file:PATH:NAME``, ``import:MODULE:NAME``, ``code:NAME``.

A file is executed anew for each run, so that an edit counts from the next run on, and what was
executed is kept as text. It runs with the rights of this process: it is the user's own code.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import linecache
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from inspector.catalog import OWN_CODE
from inspector.errors import ConfigError

_LARGEST_SOURCE = 4 << 20
TYPED = "your_code.py"
_loaded_by_us: set[str] = set()


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a reference led to.

    Attributes:
        value: the class, function or object of that name.
        module: where it was found.
        sources: the text that was executed, by the name of its file.
    """

    value: Any
    module: ModuleType
    sources: dict[str, str] = field(default_factory=dict)


def is_code(name: str) -> bool:
    """Whether a name of the configuration refers to Python of the user's own."""
    return name.partition(":")[0] in OWN_CODE


def load(reference: str, code: str = "") -> Loaded:
    """Executes what ``reference`` names and finds the name in it.

    Args:
        code: what ``code:NAME`` refers to.

    Raises:
        ConfigError: it cannot be found or read, raises while it is executed, or has no such name.
    """
    kind, _, rest = reference.partition(":")
    place, _, name = rest.rpartition(":") if kind != "code" else ("", "", rest)
    if kind == "import":
        module, sources = _imported(place, reference)
    else:
        path = typed_file(code) if kind == "code" else source_file(place or rest)
        if kind == "file" and not place:
            name = ""
        module, sources = _executed(path)
    if not name:
        offered = ", ".join(names_in(next(iter(sources.values()), ""))) or "nothing"
        raise ConfigError(
            f"Expected the name of a class or function after {reference.rstrip(':')!r}, "
            f"as in {reference.rstrip(':')}:NAME; it defines {offered}."
        )
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            offered = ", ".join(names_in(next(iter(sources.values()), ""))) or "no names"
            raise ConfigError(f"There is no {name!r} in {place or TYPED}; it defines {offered}.")
        value = getattr(value, part)
    return Loaded(value, module, sources)


def source_file(text: str) -> Path:
    """The path of a .py file.

    Raises:
        ConfigError: it is not a readable regular file of a source's size.
    """
    path = Path(text).expanduser()
    if "://" in text or path.suffix != ".py" or not path.is_file():
        raise ConfigError(f"Expected the path of a .py file, but got {text!r}; check the path.")
    if path.stat().st_size > _LARGEST_SOURCE:
        raise ConfigError(f"Expected Python source in {path}, but it is larger than 4 MB.")
    return path.resolve()


def typed_file(code: str) -> Path:
    """Typed code as a file of its own, so that tracebacks and workers find its lines."""
    if not code.strip():
        raise ConfigError("Expected Python source in 'code', but it is empty; type some.")
    digest = hashlib.sha256(code.encode()).hexdigest()[:16]
    folder = Path.home() / ".cache" / "torch-inspector" / "code" / digest
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / TYPED
    if not path.exists() or path.read_text("utf-8") != code:
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as part:
            part.write(code)
        Path(part.name).replace(path)
    return path


def names_in(source: str) -> list[str]:
    """Classes and functions that a source defines, and objects at its top; nothing is executed."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return []
    found = [
        node.name
        for node in body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")
    ]
    calls = [
        node for node in body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
    ]
    found += [t.id for node in calls for t in node.targets if isinstance(t, ast.Name)]
    return list(dict.fromkeys(found))


def _executed(path: Path) -> tuple[ModuleType, dict[str, str]]:
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"Expected Python source in {path}, but reading it failed: {error}."
        ) from error
    digest = hashlib.sha256(content).hexdigest()[:8]
    module = ModuleType(f"own_{path.stem}_{digest}")
    module.__file__ = str(path)
    linecache.checkcache(str(path))
    with _neighbours(path.parent) as neighbours:
        sys.modules[module.__name__] = module  # dataclasses and pickle look there
        try:
            exec(compile(text, str(path), "exec"), module.__dict__)
        except Exception as error:
            del sys.modules[module.__name__]
            raise ConfigError(f"{path} cannot be loaded: {describe(error, path)}.") from error
        sources = {path.name: text} | neighbours()
    return module, sources


@contextlib.contextmanager
def _neighbours(folder: Path) -> Iterator[Any]:
    """Makes the files beside a source importable, afresh; yields what tells their texts."""
    for name in _loaded_by_us & set(sys.modules):
        del sys.modules[name]
    _loaded_by_us.clear()
    importlib.invalidate_caches()
    before, written = set(sys.modules), sys.dont_write_bytecode
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last: a file named random.py must not shadow Python's
    sys.dont_write_bytecode = True  # compiled files are told apart by whole seconds only

    def texts() -> dict[str, str]:
        found = {}
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(folder) and file.endswith(".py"):
                _loaded_by_us.add(name)
                found[str(Path(file).relative_to(folder))] = Path(file).read_text("utf-8")
        return found

    try:
        yield texts
    finally:
        sys.dont_write_bytecode = written


def _imported(name: str, reference: str) -> tuple[ModuleType, dict[str, str]]:
    if not name:
        raise ConfigError(f"Expected import:MODULE:NAME, but got {reference!r}.")
    here = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    known = sys.modules.get(name)
    try:
        module = (
            importlib.reload(known) if known and _changed(known) else importlib.import_module(name)
        )
    except Exception as error:
        raise ConfigError(f"Module {name} cannot be imported: {describe(error)}.") from error
    file = getattr(module, "__file__", None)
    if not file or not file.endswith(".py"):
        return module, {}
    text = Path(file).read_text("utf-8")
    _texts[name] = text
    return module, {Path(file).name: text}


_texts: dict[str, str] = {}


def _changed(module: ModuleType) -> bool:
    """Whether the file of a module that we imported before reads differently now."""
    file = getattr(module, "__file__", None)
    seen = _texts.get(module.__name__)
    return bool(file and seen is not None and Path(file).read_text("utf-8") != seen)


def describe(error: BaseException, path: Path | None = None) -> str:
    """An exception in one line, with the line of ``path`` where it came from."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if path is not None and frame.filename == str(path)
    ]
    text = (str(error).strip() or "(no message)").splitlines()[0].rstrip(".")
    return f"{f'line {lines[-1]}: ' if lines else ''}{type(error).__name__}: {text}"
