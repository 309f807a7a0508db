"""The text of a script: gathered imports, definitions, the lines of a function."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeGuard

_WIDTH = 100


class Imports:
    """Import statements, merged and sorted.

    Attributes:
        own: statements that import the user's own Python, in their order.
    """

    def __init__(self) -> None:
        self._plain: set[tuple[str, str]] = set()
        self._names: dict[str, set[tuple[str, str]]] = {}
        self.own: dict[str, None] = {}

    def add(self, source: str) -> None:
        """Takes the import statements of a piece of source."""
        for node in ast.parse(source).body:
            self.take(node)

    def take(self, node: ast.stmt) -> bool:
        """Whether the statement is an import, which is kept."""
        if isinstance(node, ast.Import):
            self._plain |= {(alias.name, alias.asname or "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(alias.name, alias.asname or "") for alias in node.names}
            self._names.setdefault("." * node.level + (node.module or ""), set()).update(names)
        else:
            return False
        return True

    def render(self) -> str:
        """Statements: the standard library first, then all others."""
        lines: list[tuple[bool, bool, str]] = []
        for name, alias in sorted(self._plain):
            lines.append((_foreign(name), False, f"import {_named(name, alias)}"))
        for module, names in sorted(self._names.items()):
            if module != "__future__":
                listed = ", ".join(_named(*pair) for pair in sorted(names, key=_case))
                lines.append((_foreign(module), True, f"from {module} import {listed}"))
        lines.sort()
        standard = [text for foreign, _, text in lines if not foreign]
        others = [text for foreign, _, text in lines if foreign]
        return "\n\n".join("\n".join(group) for group in (standard, others) if group)


class Lines:
    """Lines of a function's body, indented by blocks."""

    def __init__(self, depth: int = 1) -> None:
        self._lines: list[str] = []
        self._depth = depth

    def add(self, *lines: str) -> None:
        for line in lines:
            if line or (self._lines and self._lines[-1]):  # one empty line is enough
                self._lines.append(f"{'    ' * self._depth}{line}" if line else "")

    def __len__(self) -> int:
        return len(self._lines)

    def insert(self, place: int, *lines: str) -> None:
        """Adds lines before the one of that number."""
        self._lines[place:place] = [f"{'    ' * self._depth}{line}" for line in lines]

    def open(self, line: str) -> None:
        """A line that begins a block."""
        self.add(line)
        self._depth += 1

    def close(self, blocks: int = 1) -> None:
        self._depth -= blocks

    def __str__(self) -> str:
        return "\n".join(self._lines)


def source_of(imports: Imports, *functions: Callable[..., Any] | type) -> list[str]:
    """The source of functions and classes, after what of their own module they use."""
    found: list[str] = []
    for function in functions:
        text = _without_orders(textwrap.dedent(inspect.getsource(function)))
        module = sys.modules[function.__module__]
        found += _used_of(imports, text, module, function.__name__)
        _import_what_is_used(imports, text, module)
        found.append(text.rstrip())
    return list(dict.fromkeys(found))


def module_source(imports: Imports, text: str) -> str:
    """A module's source without its docstring and imports, which are gathered."""
    tree = ast.parse(text)
    lines = text.splitlines()
    kept = [True] * len(lines)
    for number, node in enumerate(tree.body):
        documents = number == 0 and isinstance(node, ast.Expr) and _is_text(node.value)
        if documents or imports.take(node):
            kept[node.lineno - 1 : node.end_lineno] = [False] * (
                (node.end_lineno or node.lineno) - node.lineno + 1
            )
    return "\n".join(line for line, keep in zip(lines, kept, strict=True) if keep).strip()


def call(name: str, arguments: dict[str, Any]) -> str:
    """A call with keyword arguments, as source."""
    return f"{name}({', '.join(f'{key}={literal(value)}' for key, value in arguments.items())})"


def literal(value: Any) -> str:
    """A value as source; texts in double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(literal, value))
        if isinstance(value, list):
            return f"[{inner}]"
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return repr(value)


def comment(text: str, indent: str = "") -> str:
    """A sentence as lines of comment."""
    return textwrap.fill(
        text, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
    )


def _used_of(imports: Imports, text: str, module: ModuleType, own: str) -> list[str]:
    """What a piece of a module's source names of this package, as source of its own."""
    used, source = _names(text) - {own}, inspect.getsource(module)
    found: list[str] = []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in used:
            found += source_of(imports, getattr(module, node.name))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and used & _names_set(node):
            constant = ast.get_source_segment(source, node) or ""
            _import_what_is_used(imports, constant, module)
            found.append(constant)
        elif _is_of_ours(node):
            names = [alias.name for alias in node.names if alias.name in used]
            found += source_of(imports, *(getattr(module, name) for name in names))
    return found


def _import_what_is_used(imports: Imports, text: str, module: ModuleType) -> None:
    used = _names(text)
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)) and not _is_of_ours(node):
            names = [a for a in node.names if (a.asname or a.name).partition(".")[0] in used]
            if names:
                node.names = names
                imports.take(node)


def _is_of_ours(node: ast.stmt) -> TypeGuard[ast.ImportFrom]:
    return isinstance(node, ast.ImportFrom) and (node.module or "").startswith("inspector.")


def _names_set(node: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _names(text: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}


def _without_orders(text: str) -> str:
    """Without comments and marks that only tell our own tools something."""
    text = re.sub(r"  # (noqa|type: ignore|fmt: skip).*", "", text)
    return re.sub(r":(?:func|class):`([^`]+)`", r"\1", text)


def _named(name: str, alias: str) -> str:
    return f"{name} as {alias}" if alias else name


def _foreign(module: str) -> bool:
    return module.partition(".")[0] not in sys.stdlib_module_names


def _case(pair: tuple[str, str]) -> tuple[bool, str]:
    return pair[0][:1].islower(), pair[0]


def _is_text(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
