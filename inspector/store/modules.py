"""Numbers of parameters as numbers of the modules that hold them."""

from __future__ import annotations

import numpy as np

from inspector.store.layout import F32, I32


def owner(parameter: str) -> str:
    """Path of the module that holds a parameter."""
    return parameter.rpartition(".")[0]


def by_module(
    names: list[str], values: F32, nonfinite: I32, unit: str
) -> tuple[list[str], F32, I32]:
    """Rows [k, n] of parameters as rows of their modules, in the order of the first of each."""
    owners = [owner(name) for name in names]
    modules = list(dict.fromkeys(owners))
    lines = [[at for at, one in enumerate(owners) if one == module] for module in modules]
    combined = np.stack([together(values[own], unit) for own in lines])
    return modules, combined, np.stack([nonfinite[own].sum(axis=0) for own in lines])


def together(values: F32, unit: str) -> F32:
    """One line [n] out of several [k, n]: norms as of one vector, counts added, else the greatest.

    NaN stands for what is missing, and stays only where all are.
    """
    missing = np.isnan(values).all(axis=0)
    if unit == "L2":
        line = np.sqrt(np.nansum(np.square(values, dtype=np.float64), axis=0))
    elif unit == "values":
        line = np.nansum(values, axis=0, dtype=np.float64)
    else:
        line = np.fmax.reduce(values, axis=0)
    return np.where(missing, np.nan, line).astype(np.float32)
