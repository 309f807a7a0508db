"""Training programs with a known fault each, their repaired twins, and healthy odd ones.

Plain PyTorch: a program knows only ``watch``, as a user's script would. A seed varies
architecture, width, depth, data, optimizer, learning rate, batch and the place of the fault.
"""

from labelled_programs import (
    data_faults,
    gradient_faults,
    healthy,
    model_faults,
    plain_mistakes,
    setup_faults,
)
from labelled_programs.catalog import Program, all_programs, faulty_programs, healthy_programs

__all__ = [
    "Program",
    "all_programs",
    "data_faults",
    "faulty_programs",
    "gradient_faults",
    "healthy",
    "healthy_programs",
    "model_faults",
    "plain_mistakes",
    "setup_faults",
]
