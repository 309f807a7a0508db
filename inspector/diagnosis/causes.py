"""Which findings explain which: a non-finite loss is a symptom of too high a learning rate."""

_UNSTABLE = ("lr_too_high", "exploding_gradient", "nonfinite", "dead_relu", "saturated_activation")
_STUCK = ("lr_too_low", "vanishing_gradient")

EXPLAINS: dict[str, tuple[str, ...]] = {
    "missing_zero_grad": _UNSTABLE,
    "wrong_loss": (*_UNSTABLE, *_STUCK, "label_mismatch", "overfitting", "poor_initialization",
                   "frozen_parameters"),
    "label_mismatch": (*_UNSTABLE, *_STUCK, "overfitting", "wrong_loss", "unnormalized_input",
                       "poor_initialization"),
    "unnormalized_input": (*_UNSTABLE, *_STUCK, "poor_initialization"),
    "poor_initialization": (*_UNSTABLE, *_STUCK, "frozen_parameters"),
    "double_softmax": (*_STUCK, "lr_too_high"),
    "no_shuffle": ("lr_too_high", "overfitting", "class_imbalance", "exploding_gradient"),
    "mode_mistake": ("overfitting", "lr_too_high"),
    "mixed_samples": ("overfitting", "class_imbalance", "label_mismatch", *_STUCK),
    "small_batch": ("overfitting", "exploding_gradient", "vanishing_gradient", "lr_too_high"),
    "frozen_parameters": _STUCK,
    "saturated_activation": _STUCK,
    "dead_relu": (*_STUCK, "frozen_parameters", "label_mismatch"),
    "exploding_gradient": ("nonfinite", "lr_too_high", "dead_relu", "saturated_activation"),
    "lr_too_high": ("exploding_gradient", "nonfinite", "dead_relu", "saturated_activation",
                    "vanishing_gradient", "frozen_parameters", "label_mismatch"),
    "nonfinite": ("frozen_parameters", *_STUCK),
    "vanishing_gradient": ("lr_too_low",),
    "class_imbalance": ("label_mismatch",),
}  # fmt: skip
"""Cause → symptoms. Only causes of level warning or above explain anything."""
