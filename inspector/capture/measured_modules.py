"""The modules whose outputs are measured, in the order of their columns."""

from __future__ import annotations

from inspector.capture.hooks import ModuleHook
from inspector.capture.measured import ModuleColumns


class MeasuredModules:
    """Grows while modules are discovered."""

    def __init__(self) -> None:
        self._hooks: list[ModuleHook] = []
        self._columns: ModuleColumns | None = None
        self._types: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self._hooks)

    def add(self, hook: ModuleHook) -> None:
        """The module gets the next column."""
        hook.take_column(len(self._hooks))
        self._hooks.append(hook)
        self._columns = None

    @property
    def columns(self) -> ModuleColumns:
        """The module series so far; the same object until a module joins."""
        if self._columns is None:
            self._columns = ModuleColumns(
                [hook.record.path for hook in self._hooks],
                [hook.bounds is not None for hook in self._hooks],
            )
        return self._columns

    @property
    def types(self) -> tuple[tuple[str, str], ...]:
        """Path and class name by column."""
        if len(self._types) != len(self._hooks):
            self._types = tuple((hook.record.path, hook.record.type) for hook in self._hooks)
        return self._types

    def be_careful(self, columns: set[int]) -> None:
        """From now on only these modules' variances are computed the slow way."""
        for column, hook in enumerate(self._hooks):
            hook.careful = column in columns
