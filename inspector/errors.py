"""The exceptions that this package raises on purpose.

    InspectorError
    ├── ConfigError      a run configuration that cannot work
    ├── ModelError       a model that cannot be found, built or fed
    ├── DataError        data that cannot be found, loaded or fed
    ├── CommandError     a command with an unusable value
    ├── ExportError      a run that cannot be written in a format, or a log that cannot be read
    └── StoreError       a run directory that cannot be written or read
        └── RunNotFound  no run of that name

Every message says what was expected, what was received and what to do, in one sentence.
"""


class InspectorError(Exception):
    """Base of every exception raised on purpose by this package."""


class ConfigError(InspectorError, ValueError):
    """A run configuration names something unknown or combines what does not fit."""


class ModelError(InspectorError):
    """A model cannot be found, built, or run on the data that was chosen for it."""


class DataError(InspectorError):
    """Data cannot be found, downloaded, read or turned into batches."""


class CommandError(InspectorError, ValueError):
    """A command carries a value that must not be applied, such as a negative learning rate."""


class ExportError(InspectorError):
    """A run cannot be written in the format asked for, or a foreign log cannot be imported."""


class StoreError(InspectorError):
    """A run directory cannot be created, written or read."""


class RunNotFound(StoreError, FileNotFoundError):
    """There is no run under that path or name."""
