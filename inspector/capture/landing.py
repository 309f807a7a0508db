"""From a step's numbers, which may be on a device or wait for the loss, to the listener."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from inspector.capture.flight import Flight
from inspector.capture.forward import ForwardProbe
from inspector.capture.listener import Listener
from inspector.capture.measured import Measured
from inspector.capture.nonfinite import NonFiniteWatch, Onset
from inspector.capture.plain import Landed
from inspector.capture.schedule import Schedule


class Landing:
    """Hands steps over in order, each once.

    Attributes:
        held: the finished step that still waits for what the script records of it.
        nonfinite: whether values are non-finite at present.
    """

    def __init__(
        self,
        forward: ForwardProbe,
        schedule: Schedule,
        listener: Listener,
        fail: Callable[[str, Exception], None],
    ) -> None:
        self.held: Flight | Landed | None = None
        self.nonfinite = NonFiniteWatch()
        self._flights: deque[Flight | Landed] = deque()
        self._forward = forward
        self._schedule = schedule
        self._listener = listener
        self._fail = fail

    @property
    def pending(self) -> bool:
        """Whether numbers are on their way from a device."""
        return bool(self._flights)

    def hold(self, flight: Flight | Landed) -> None:
        """Waits with a step until :meth:`release`, or until the next forward pass."""
        self.held = flight
        self._forward.expect(True)

    def release(self) -> None:
        """Nothing more comes for the finished step."""
        if self.held is not None:
            flight, self.held = self.held, None
            self._forward.expect(False)
            self.send(flight)

    def send(self, flight: Flight | Landed) -> None:
        """Starts the copy to the host, where there is one."""
        flight.depart()
        self._flights.append(flight)
        self.receive()

    def receive(self, *, waiting: bool = False) -> None:
        """Hands over the steps whose numbers have arrived; waits for the others if told to."""
        while self._flights and (waiting or self._flights[0].ready()):
            self._land(self._flights.popleft())

    def _land(self, flight: Flight | Landed) -> None:
        try:
            measured = flight.land()
            if flight.careful or isinstance(flight.entries, list):
                self._forward.be_careful(flight.careful)
        except Exception as error:
            self._fail("step", error)
            return
        self.deliver(measured, measured.onset)

    def deliver(self, measured: Measured, onset: Onset | None) -> None:
        """Tells the listener; a fresh onset without a place asks for a full step."""
        measured.onset = self.nonfinite.update(measured, onset)
        if measured.onset is not None and not measured.full:
            self._schedule.look_closer()  # what is NaN mostly stays: the next step says where
        self._listener.on_measured(measured)
