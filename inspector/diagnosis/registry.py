"""The rules, by code, with their thresholds; a user's own rules join by the same decorator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from inspector.diagnosis.finding import Finding
from inspector.diagnosis.observations import Observations
from inspector.errors import ConfigError

Thresholds = Mapping[str, float]
Check = Callable[[Observations, Thresholds], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A check and the thresholds it reads, by name."""

    code: str
    check: Check
    thresholds: Thresholds = field(default_factory=dict)


_rules: dict[str, Rule] = {}


def register(code: str, **thresholds: float) -> Callable[[Check], Check]:
    """Makes a function a rule::

        @register("loss_is_42", tolerance=1e-6)
        def loss_is_42(run, limits):
            loss = run.series("loss")
            if len(loss.values) and abs(loss.values[-1] - 42) < limits["tolerance"]:
                yield Finding(code="loss_is_42", level="note", title="The answer.", confidence=1)

    Registering a code again replaces its rule.
    """

    def accept(check: Check) -> Check:
        _rules[code] = Rule(code, check, dict(thresholds))
        return check

    return accept


def unregister(code: str) -> None:
    """Removes a rule; an unknown code is fine."""
    _rules.pop(code, None)


def all_rules() -> dict[str, Rule]:
    """Every rule by its code."""
    import inspector.diagnosis.rules  # noqa: F401  (the built-in rules register themselves)

    return dict(_rules)


def thresholds() -> dict[str, float]:
    """Every threshold with its default, named ``code.name``."""
    return {
        f"{rule.code}.{name}": value
        for rule in all_rules().values()
        for name, value in rule.thresholds.items()
    }


def with_overrides(known: Mapping[str, Rule], changed: Thresholds | None) -> dict[str, Thresholds]:
    """The thresholds of each rule; ``changed`` is keyed ``code.name``.

    Raises:
        ConfigError: no rule has a threshold of that name.
    """
    made = {code: dict(rule.thresholds) for code, rule in known.items()}
    for name, value in (changed or {}).items():
        code, _, key = name.partition(".")
        if key not in made.get(code, {}):
            choices = ", ".join(sorted(f"{c}.{k}" for c, found in made.items() for k in found))
            raise ConfigError(f"Expected a threshold among {choices}, but got {name!r}.")
        made[code][key] = float(value)
    return dict(made)
