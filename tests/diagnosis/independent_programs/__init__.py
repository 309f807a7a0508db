"""A second set of training programs, written without looking at the rules.

Faults as people report them: questions on Stack Overflow and the PyTorch forums, course notes
(Karpathy's recipe, CS231n), and the benchmarks behind AUTOTRAINER, DeepFD, DeepLocalize,
NeuraLint and UMLAUT, written again in PyTorch. Each program is a script of its own kind; the seed
varies sizes, data and rates. ``parts()`` splits the set: rules may be mended on ``tuning`` only.
"""

from independent_programs import (
    architecture,
    data,
    healthy,
    healthy_structures,
    losses,
    numbers,
    optimisation,
    setup,
)
from independent_programs.catalog import parts

__all__ = [
    "architecture",
    "data",
    "healthy",
    "healthy_structures",
    "losses",
    "numbers",
    "optimisation",
    "parts",
    "setup",
]
