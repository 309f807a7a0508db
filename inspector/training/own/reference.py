"""References to a user's own Python: ``file:PATH:NAME``, ``import:MODULE:NAME``, ``code:NAME``.

A file is executed anew for each run, so that an edit counts from the next run on, and what was
executed is kept as text. It runs with the rights of this process: it is the user's own code.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import linecache
import os
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from inspector.catalog import OWN_CODE
from inspector.errors import ConfigError

_LARGEST_SOURCE = 4 << 20
TYPED = "your_code.py"
_OURS = frozenset(("inspector", "sample_models", "pages", "app"))


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a reference led to.

    Attributes:
        value: the class, function or object of that name.
        module: where it was found.
        sources: the text that was executed, by the name of its file.
        origins: where each of these files lies; none for typed code.
    """

    value: Any
    module: ModuleType
    sources: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)


Read = tuple[ModuleType, dict[str, str], dict[str, str]]
"""A module, the texts of its files by name, and where they lie."""

_before: dict[Path, frozenset[str]] = {}  # modules that were there when a folder was first read
_added: set[str] = set()  # folders that were put on sys.path here
_seen: dict[Path, str] = {}  # files of importable modules, as they were when they were imported
_reading: dict[Path, Read] | None = None


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
        module, sources, origins = _imported(place, reference)
    else:
        path = typed_file(code) if kind == "code" else source_file(place or rest)
        if kind == "file" and not place:
            name = ""
        module, sources, origins = _executed(path)
        origins = {} if kind == "code" else origins
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
    return Loaded(value, module, sources, origins)


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


def _executed(path: Path) -> Read:
    if _reading is not None and path in _reading:
        return _reading[path]
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
    if not _reading:  # what model and data both import is one module to both
        forget(path.parent)
    with _importable(path.parent):
        sys.modules[module.__name__] = module  # dataclasses and pickle look there
        try:
            exec(compile(text, str(path), "exec"), module.__dict__)
        except (Exception, SystemExit) as error:
            del sys.modules[module.__name__]
            raise ConfigError(
                f"{path} cannot be loaded: {describe(error, path)}{_guard(error)}."
            ) from error
    files = {path.name: path} | own_files(path.parent)
    read = module, {path.name: text} | _texts_of(files, {path.name}), _named_paths(files)
    if _reading is not None:
        _reading[path] = read
    return read


@contextlib.contextmanager
def one_reading() -> Iterator[None]:
    """Each file is executed once inside, however many references lead to it."""
    global _reading
    _reading = {}
    try:
        yield
    finally:
        _reading = None


def own_files(folder: Path) -> dict[str, Path]:
    """The files in a folder that were imported since it was first read from, by relative path."""
    found = {}
    for name in _modules_in(folder):
        file = Path(str(sys.modules[name].__file__))
        found[str(file.relative_to(folder))] = file
    return found


def forget(folder: Path) -> None:
    """Has everything that a user's source imports from its folder be imported afresh.

    A module of the same name that another source imported from its own folder stands aside.
    """
    for other in [place for place in _before if place != folder]:
        for name in _modules_in(other):
            top = name.partition(".")[0]
            if (folder / f"{top}.py").exists() or (folder / top).is_dir():
                sys.modules.pop(name, None)
    for name in _modules_in(folder):
        del sys.modules[name]
    importlib.invalidate_caches()


def _modules_in(folder: Path) -> list[str]:
    known = _before.setdefault(folder, frozenset(sys.modules))
    return [
        name
        for name, module in list(sys.modules.items())
        if name not in known
        and getattr(module, "__spec__", None) is not None  # what we executed has none
        and name.partition(".")[0] not in _OURS
        and _is_source_in(getattr(module, "__file__", None), folder)
    ]


def _is_source_in(file: str | None, folder: Path) -> bool:
    if not file or not file.endswith(".py"):
        return False
    path = Path(file)
    return path.is_relative_to(folder) and not {"site-packages", "dist-packages"} & set(path.parts)


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Makes the files beside a source importable, and read anew when they have changed."""
    written = sys.dont_write_bytecode
    place = str(folder)
    if place in _added and place in sys.path:
        sys.path.remove(place)
    if place not in sys.path:  # behind all else: a file named random.py must not shadow Python's
        first = next((at for at, path in enumerate(sys.path) if path in _added), len(sys.path))
        sys.path.insert(first, place)
        _added.add(place)
    sys.dont_write_bytecode = True  # compiled files are told apart by whole seconds only
    try:
        yield
    finally:
        sys.dont_write_bytecode = written


def _imported(name: str, reference: str) -> Read:
    if not name:
        raise ConfigError(f"Expected import:MODULE:NAME, but got {reference!r}.")
    here = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    folder = _folder_of(name.partition(".")[0])
    try:
        if folder is None:
            return importlib.import_module(name), {}, {}
        if any(path in _seen and _read(path) != _seen[path] for path in own_files(folder).values()):
            forget(folder)
        with _importable(folder):
            module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"Module {name} cannot be imported: {describe(error)}{_guard(error)}."
        ) from error
    files = own_files(folder)
    own = getattr(module, "__file__", None)
    if _is_source_in(own, folder):
        files = {str(Path(str(own)).relative_to(folder)): Path(str(own))} | files
    texts = _texts_of(files)
    _seen.update({files[name]: text for name, text in texts.items()})
    return module, texts, _named_paths(files)


def _folder_of(package: str) -> Path | None:
    """The folder that a user's own package or module lies in; None for installed ones."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    origin = Path(spec.origin)
    folder = origin.parent.parent if spec.submodule_search_locations else origin.parent
    installed = {Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")}
    return None if folder in installed or package in _OURS else folder


def _texts_of(files: dict[str, Path], known: Collection[str] = ()) -> dict[str, str]:
    return {name: _read(path) for name, path in files.items() if name not in known}


def _named_paths(files: dict[str, Path]) -> dict[str, str]:
    return {name: str(path) for name, path in files.items()}


def _read(path: Path) -> str:
    return path.read_text("utf-8", errors="replace") if path.is_file() else ""


def _guard(error: BaseException) -> str:
    """What helps where a script runs, and ends, as soon as it is loaded."""
    ends = isinstance(error, SystemExit)
    return "; put what it does as a script below if __name__ == '__main__':" if ends else ""


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
