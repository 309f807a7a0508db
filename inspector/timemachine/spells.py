"""Whose steps are non-finite at present, so that each spell is told once."""

from __future__ import annotations

_OVER = 200  # steps since an optimizer's last bad one, after which its spell is over in any case


class Spells:
    """One spell an optimizer: a healthy step of another model does not end it.

    Attributes:
        last: of each optimizer that is ill, by position, its last bad step and how many calls of
            the model that step had had by then.
    """

    def __init__(self) -> None:
        self.last: dict[int, tuple[int, int]] = {}

    def clear(self) -> None:
        """Everybody is well."""
        self.last.clear()

    def known(self, position: int, *, spreads: bool) -> bool:
        """Whether a bad step belongs to a spell that has been told.

        Args:
            spreads: updates are made with what is bad, so that it reaches the other models.
        """
        return position in self.last or (spreads and bool(self.last))

    def shared(self, step: int, calls: int, position: int) -> bool:
        """Whether another optimizer was bad by the same calls, as with one loss for both."""
        return any(bad == (step, calls) for one, bad in self.last.items() if one != position)

    def bad(self, step: int, calls: int, position: int) -> None:
        """An optimizer was about to step with something non-finite."""
        self.last[position] = step, calls

    def well(self, step: int, position: int) -> None:
        """All was finite: that ends its own spell, and those of others that have long rested."""
        self.last.pop(position, None)
        if self.last:
            self.last = {one: bad for one, bad in self.last.items() if step - bad[0] < _OVER}
