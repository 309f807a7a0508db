"""The faults that can be put into a running model on purpose (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of the break-it menu.

    Attributes:
        key: its name in commands.
        title: a few words, told when it is revealed.
        about: what is done, in one sentence.
        symptom: what the class may notice.
        codes: the findings that name it; the first is the best.
        wrecks: what it does to the weights stays when it is taken away; so healing puts back
            weights, buffers and optimizer state as they were before it.
        overwrites: it overwrites something that another fault may overwrite as well.
    """

    key: str
    title: str
    about: str
    symptom: str
    codes: tuple[str, ...] = ()
    wrecks: bool = False
    overwrites: bool = False


_ALL = (
    Fault(
        "sigmoid", "sigmoid everywhere",
        "Every activation, module or function, computes a sigmoid instead.",
        "Gradients shrink from module to module on their way back.",
        ("vanishing_gradient",),
    ),
    Fault(
        "no_activation", "activations removed",
        "Every activation, module or function, passes on what it gets.",
        "Many linear modules are one linear module: the loss stalls higher.",
        ("missing_activation",),
    ),
    Fault(
        "large_weights", "weights × 10",
        "All weights with two or more dimensions are multiplied by ten.",
        "Loss and gradient norm jump; tanh and sigmoid saturate.",
        ("poor_initialization", "dead_relu", "exploding_gradient", "saturated_activation"),
        wrecks=True, overwrites=True,
    ),
    Fault(
        "zero_weights", "weights all alike",
        "The weights of the hidden modules become one small constant.",
        "All units of a module do the same, for ever.",
        ("poor_initialization",),
        wrecks=True, overwrites=True,
    ),
    Fault(
        "dead_bias", "bias −10",
        "The biases of the hidden modules become −10.",
        "Units behind a ReLU fall silent: share of zeros 100%, no gradient.",
        ("dead_relu",),
        wrecks=True, overwrites=True,
    ),
    Fault(
        "lr_high", "learning rate × 100",
        "The learning rate of every group is multiplied by 100.",
        "Update ratios jump, the loss leaps about or becomes NaN.",
        ("lr_too_high", "dead_relu", "exploding_gradient"),
        wrecks=True, overwrites=True,
    ),
    Fault(
        "lr_low", "learning rate ÷ 1000",
        "The learning rate of every group is divided by 1000.",
        "The loss stays where it is; update ratios are tiny.",
        ("lr_too_low",),
        overwrites=True,
    ),
    Fault(
        "no_zero_grad", "forgotten zero_grad",
        "optimizer.zero_grad() does nothing.",
        "Gradients pile up, the norm grows steadily.",
        ("missing_zero_grad",),
        wrecks=True, overwrites=True,
    ),
    Fault(
        "double_softmax", "softmax twice",
        "The model's output goes through a softmax before the loss.",
        "Learning becomes slow; the loss cannot fall far.",
        ("double_softmax",),
    ),
    Fault(
        "unnormalized", "inputs not normalised",
        "Inputs are multiplied by 255, as if nobody had scaled the pixels.",
        "Activations and gradients of the first module are huge.",
        ("unnormalized_input", "dead_relu"),
        wrecks=True,
    ),
    Fault(
        "nan_in_batch", "a NaN in one batch",
        "One number of one sample of the next batch is NaN.",
        "Loss and all gradients are NaN at once.",
        ("nonfinite",),
        wrecks=True,
    ),
    Fault(
        "frozen", "first module frozen",
        "The parameters of the first module with parameters no longer ask for gradients.",
        "Its row in the heat maps goes dark.",
        ("frozen_parameters",),
    ),
    Fault(
        "detached", "graph cut",
        "The output of a module in the middle is detached: no gradient gets past it.",
        "Everything before the cut stops learning.",
        ("frozen_parameters",),
    ),
    Fault(
        "shuffled_labels", "labels shuffled",
        "Labels are dealt to the samples of each batch at random.",
        "The loss climbs back to that of guessing.",
        ("label_mismatch",),
    ),
    Fault(
        "eval_mode", "eval mode in training",
        "The model trains in eval mode: no dropout, batch statistics are not used.",
        "Batch normalisation goes by stale statistics.",
        ("mode_mistake",),
        overwrites=True,
    ),
)  # fmt: skip

FAULTS: dict[str, Fault] = {fault.key: fault for fault in _ALL}
"""By key, in the order of the menu."""
