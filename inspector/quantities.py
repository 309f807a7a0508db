"""What is measured: one entry per recorded quantity, with its unit and the moment of measuring.

A *series* is one quantity of one subject over the steps of a run. The subject of a series is a
module path (as in ``named_modules()``; the root module is ``""``), a parameter name (as in
``named_parameters()``), or nothing for the run as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Scope = Literal["run", "module", "parameter"]
When = Literal["forward", "after_backward", "before_step", "after_step", "step", "epoch"]


class SeriesKey(NamedTuple):
    """Identity of a series: what was measured, and on which module or parameter."""

    quantity: str
    scope: Scope = "run"
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One thing that is measured.

    Attributes:
        name: identifier used in the store, the API and the charts.
        title: label for people.
        unit: physical or mathematical unit; empty for dimensionless numbers.
        scope: whether it belongs to the run, to a module or to a parameter.
        when: the moment of measuring. ``after_backward`` is before clipping and unscaled;
            ``before_step`` is after unscaling and clipping, as the optimizer sees it.
        about: one sentence for hover texts and the documentation.
        log: whether a logarithmic axis suits it.
    """

    name: str
    title: str
    unit: str
    scope: Scope
    when: When
    about: str
    log: bool = False

    @property
    def peaks(self) -> bool:
        """Whether several rows in one place are shown by their greatest value, not their mean."""
        return self.log or self.unit == "L2"


_SINCE = "as a share of the time of all steps since it was last told, four times a second"

_ALL = (
    Quantity("loss", "Loss", "", "run", "step", "Training loss of the step's batch."),
    Quantity("val_loss", "Validation loss", "", "run", "epoch",
             "Mean loss over the validation part, model in eval mode."),
    Quantity("accuracy", "Accuracy", "", "run", "step",
             "Share of the step's batch that was classified correctly."),
    Quantity("val_accuracy", "Validation accuracy", "", "run", "epoch",
             "Share of the validation part that was classified correctly."),
    Quantity("test_loss", "Test loss", "", "run", "epoch",
             "Mean loss over the test part after the last step, model in eval mode."),
    Quantity("test_accuracy", "Test accuracy", "", "run", "epoch",
             "Share of the test part that was classified correctly after the last step."),
    Quantity("data_seconds", "Waiting for data", "s", "run", "step",
             "Time that the step waited for its batch."),
    Quantity("lr", "Learning rate", "", "run", "step",
             "Learning rate of the first parameter group, as used by the step.", log=True),
    Quantity("momentum", "Momentum", "", "run", "step",
             "Momentum (or Adam's first beta) of the first parameter group."),
    Quantity("weight_decay", "Weight decay", "", "run", "step",
             "Weight decay of the first parameter group."),
    Quantity("total_grad_norm", "Gradient norm", "L2", "run", "after_backward",
             "L2 norm of all parameter gradients together, before clipping, unscaled.", log=True),
    Quantity("clipped_grad_norm", "Gradient norm after clipping", "L2", "run", "before_step",
             "L2 norm of all parameter gradients together, as the optimizer receives "
             "them.", log=True),
    Quantity("clipped", "Clipped", "0/1", "run", "before_step",
             "1 where clipping changed the gradients of the step, else 0."),
    Quantity("total_update_ratio", "Update ratio", "", "run", "after_step",
             "L2 norm of the change of all parameters divided by the L2 norm of the "
             "parameters.", log=True),
    Quantity("backward_passes", "Backward passes since zero_grad", "passes", "run", "before_step",
             "How many backward passes have piled up in the gradients."),
    Quantity("gradients_late", "Gradients seen late", "0/1", "run", "before_step",
             "1 where gradients were first seen before the step, so perhaps already clipped."),
    Quantity("grad_scale", "Loss scale", "", "run", "before_step",
             "GradScaler's factor during the step.", log=True),
    Quantity("nonfinite", "Non-finite values", "values", "run", "step",
             "NaN and infinite values seen in activations, gradients and parameters of the step."),
    Quantity("epoch", "Epoch", "epochs", "run", "step", "Epochs completed, as a fraction."),
    Quantity("step_time", "Step time", "s", "run", "step",
             "Wall-clock time from the end of the previous step to the end of this one."),
    Quantity("samples_per_s", "Samples per second", "1/s", "run", "step",
             "Samples of the batch divided by the step time."),
    Quantity("memory", "Memory", "B", "run", "step", "Resident memory of the training process."),
    Quantity("gpu_memory", "GPU memory", "B", "run", "step",
             "Memory allocated by PyTorch on the CUDA device."),
    Quantity("overhead", "Cost of watching", "share", "run", "step",
             "Time spent in the inspector's own code during the step, as a share of the step."),
    Quantity("overhead_forward", "Cost of watching: module outputs", "share", "run", "step",
             f"Time spent on module outputs, {_SINCE}."),
    Quantity("overhead_gradients", "Cost of watching: gradients", "share", "run", "step",
             f"Time spent on gradients of outputs and parameters, {_SINCE}."),
    Quantity("overhead_updates", "Cost of watching: updates", "share", "run", "step",
             f"Time spent on received gradients, weights and updates, {_SINCE}."),
    Quantity("overhead_histograms", "Cost of watching: histograms", "share", "run", "step",
             f"Time spent on histograms of parameters, {_SINCE}; it is also part of the gradients' "
             "and the end of the step's cost."),
    Quantity("overhead_time_machine", "Cost of watching: time machine", "share", "run", "step",
             "Time spent on keeping batches and copies of the state and on looking for non-finite "
             f"gradients, {_SINCE}."),
    Quantity("overhead_structure", "Cost of watching: structure", "share", "run", "step",
             f"Time spent on facts about the program for the diagnosis, {_SINCE}."),
    Quantity("overhead_step", "Cost of watching: end of the step", "share", "run", "step",
             f"Time spent on putting steps' numbers together and handing them over, {_SINCE}."),
    Quantity("grad_norm", "Gradient norm", "L2", "parameter", "after_backward",
             "L2 norm of a parameter's gradient, before clipping, unscaled.", log=True),
    Quantity("grad_norm_clipped", "Gradient norm after clipping", "L2", "parameter", "before_step",
             "L2 norm of a parameter's gradient, as the optimizer receives it.", log=True),
    Quantity("grad_max", "Largest gradient", "", "parameter", "after_backward",
             "Largest absolute value in a parameter's gradient, before clipping, "
             "unscaled.", log=True),
    Quantity("grad_nonfinite", "Non-finite gradients", "values", "parameter", "after_backward",
             "NaN and infinite values in a parameter's gradient."),
    Quantity("weight_norm", "Weight norm", "L2", "parameter", "after_step",
             "L2 norm of a parameter.", log=True),
    Quantity("update_ratio", "Update ratio", "", "parameter", "after_step",
             "L2 norm of a parameter's change in the step divided by its L2 norm "
             "before.", log=True),
    Quantity("activation_mean", "Activation mean", "", "module", "forward",
             "Mean of a module's output in training mode."),
    Quantity("activation_std", "Activation standard deviation", "", "module", "forward",
             "Standard deviation of a module's output in training mode.", log=True),
    Quantity("activation_zeros", "Share of zeros", "", "module", "forward",
             "Share of a module's output that is exactly zero."),
    Quantity("activation_saturated", "Share saturated", "", "module", "forward",
             "Share of a module's output within 0.03 of the bounds of its activation function "
             "(tanh: |y| > 0.97; sigmoid: y < 0.015 or y > 0.985)."),
    Quantity("activation_nonfinite", "Non-finite activations", "values", "module", "forward",
             "NaN and infinite values in a module's output."),
    Quantity("output_grad_norm", "Output gradient norm", "L2", "module", "after_backward",
             "L2 norm of the gradient that reaches a module's output, unscaled.", log=True),
)  # fmt: skip

QUANTITIES: dict[str, Quantity] = {quantity.name: quantity for quantity in _ALL}
"""Every quantity the package records by itself; a user's own scalars have scope ``run``."""


def described(quantity: str) -> Quantity:
    """A quantity by its name; one that the package does not know is a user's own scalar."""
    return QUANTITIES.get(quantity) or Quantity(quantity, quantity, "", "run", "step", "")


def scope_of(quantity: str) -> Scope:
    """Scope of a quantity."""
    return described(quantity).scope


_THINNED = frozenset(
    ("total_grad_norm", "clipped_grad_norm", "clipped", "total_update_ratio", "nonfinite")
)


def is_thinned(quantity: str) -> bool:
    """Whether a quantity is measured only where the schedule has a step measured in full."""
    return scope_of(quantity) != "run" or quantity in _THINNED


ABSENT_BITS = 0x7FC0AB5E
"""The float32 bit pattern (a NaN with a payload of our own) of *not measured at this step*.

The store tells it apart from a NaN that was measured. Arithmetic does not keep the payload: fill
it in last (``inspector.store.layout.ABSENT`` is the number).
"""
