"""The pages that ordinary steps leave behind, written in C; see ``capture/logbook.c``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from inspector.capture import native
from inspector.timemachine.calls import OUTPUT, Call
from inspector.timemachine.state import random_state

_REFUSALS = 4  # in a row, after which this loop's steps count as out of the ordinary


class Logbook:
    """Writes down one call of the model a step, until something else happens.

    Attributes:
        book: the extension's part, whose methods are hooks; each turns to the Python function of
            the same name for what is not ordinary.

    Args:
        limit: bytes that the pages may take.
    """

    def __init__(
        self,
        *,
        enter: Callable[..., None],
        leave: Callable[..., None],
        criterion: Callable[..., None],
        on_loss: Callable[..., None],
        receive: Callable[..., None],
        before: Callable[..., None],
        now: Callable[[], int],
        autocast: Callable[[], Any],
        limit: int,
    ) -> None:
        self._refused = 0
        self.book: Any = native.load().Logbook(
            enter,
            leave,
            criterion,
            on_loss,
            receive,
            before,
            now,
            torch.default_generator.get_state,
            torch._C._is_any_autocast_enabled,
            autocast,
            None,
            OUTPUT,
            limit,
        )

    def begin(self, due: int, exact: bool, forget: Callable[[], None]) -> bool:
        """Leaves the coming steps to the extension; False where they proved not to be ordinary.

        Args:
            due: the step that is not ordinary in any case.
            exact: the loss can be called again.
            forget: called once the pages reach so far back that older calls are of no use.
        """
        if self._refused >= _REFUSALS:
            return False
        self.book.full = forget
        self.book.begin(due, exact)
        return True

    def take(self) -> tuple[list[tuple[int, Call]], bool, float | None]:
        """Closes the book: its calls by step, whether the last one still runs, and its loss."""
        pages, running, loss = self.book.take()
        self._refused = self._refused + 1 if len(pages) < 2 else 0
        return [_call(page) for page in pages], running, loss

    def rest(self, resting: bool, glancing: bool, exact: bool) -> tuple[int, Call] | None:
        """Begins or ends the machine's rest, in which the book may glance at each step.

        Gives step and call that were glanced at last, where that is known.

        Args:
            exact: the loss can be called again.
        """
        page = self.book.wake()
        self.book.resting, self.book.glancing, self.book.exact = resting, glancing, exact
        return None if page is None else _call(page)

    def spent(self) -> int:
        """Nanoseconds since the last time this was asked for."""
        taken: int = self.book.spent
        self.book.spent = 0
        return taken


def _call(page: tuple[Any, ...]) -> tuple[int, Call]:
    step, nbytes, args, versions, random, autocast, *rest = page
    call = Call(random or random_state())
    call.args, call.versions, call.nbytes, call.autocast = args, versions, nbytes, autocast
    call.loss_args, call.loss, call.output, call.gradient, complete = rest
    call.complete = bool(complete)
    return step, call
