"""What a finished step has to say, collected from the probes."""

from __future__ import annotations

from typing import Any

from inspector.capture.flight import Flight
from inspector.capture.forward import ForwardProbe
from inspector.capture.histograms import HistogramBatch
from inspector.capture.plain import Landed
from inspector.capture.probes import Probes
from inspector.capture.readings import rates


def gather(
    step: int,
    optimizer: Any,
    probes: Probes,
    forward: ForwardProbe,
    *,
    full: bool,
    histograms: HistogramBatch | None,
) -> Flight | Landed:
    """The step's numbers, those of modules and parameters if it is measured ``full``."""
    plain = probes.plain
    if full and plain is not None and histograms is None:
        first, tape = probes.each[0], forward.taped
        cells = first.cells()
        if tape is not None and cells.here and first.scale is None and not forward.remote:
            landed = plain.finish(step, cells, tape, forward.columns, forward.types)
            forward.forget_mark()
            _put_settings(landed, optimizer, probes, full=True)
            return landed
    return _flight(step, optimizer, probes, forward, full=full, histograms=histograms)


def _flight(
    step: int,
    optimizer: Any,
    probes: Probes,
    forward: ForwardProbe,
    *,
    full: bool,
    histograms: HistogramBatch | None,
) -> Flight:
    first = probes.each[0]
    flight = Flight(step, full, probes.remote or forward.remote)
    if first.total_norm is not None and not full:
        flight.put("total_grad_norm", first.total_norm)
    flight.scaled = first.scale is not None
    flight.scale = 1.0 if first.scale is None else first.scale
    flight.received_scale = 1.0 if first.received_scale is None else first.received_scale
    flight.found_inf = 0.0 if first.found_inf is None else first.found_inf
    flight.histograms = histograms
    tape = forward.taped if full and not probes.remote else None
    if tape is not None and type(flight.scale) is float:
        flight.reduce_modules(tape, forward.columns)
        forward.forget_mark()
    else:
        flight.entries, flight.output_gradients = forward.take()
    if full:
        flight.parameters = probes.cells()
        flight.parameter_keys = probes.keys
        flight.parameter_names = probes.parameters.names
        flight.owners = probes.parameters.owners
        flight.columns = forward.columns
        flight.module_types = forward.types
    _put_settings(flight, optimizer, probes, full=full)
    return flight


def _put_settings(flight: Flight | Landed, optimizer: Any, probes: Probes, *, full: bool) -> None:
    first = probes.each[0]
    for name, value in rates(optimizer.param_groups[0]).items():
        flight.put(name, value)
    if first.passes:
        flight.put("backward_passes", float(first.passes))
    if full and first.late:
        flight.put("gradients_late", 1.0)
    first.forget_step()
