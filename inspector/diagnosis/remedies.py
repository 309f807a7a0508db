"""What helps against each finding, as data: a control that can be set now, or code to change."""

from __future__ import annotations

import math

from inspector.diagnosis.finding import Remedy
from inspector.numerals import short

_CLIP = Remedy(text="Clip the gradient norm at 1.", control="clip", value="norm")
_HE = "torch.nn.init.kaiming_normal_(module.weight); torch.nn.init.zeros_(module.bias)"

REMEDIES: dict[str, tuple[Remedy, ...]] = {
    "vanishing_gradient": (
        Remedy(text="Use ReLU-like activations in the hidden modules.", code="nn.ReLU()"),
        Remedy(text="Normalise between modules.", code="nn.BatchNorm1d(width)  # or nn.LayerNorm"),
        Remedy(text="Add residual connections: y = x + f(x).", code="x = x + self.block(x)"),
    ),
    "exploding_gradient": (_CLIP,),
    "dead_relu": (
        Remedy(text="Re-initialise the module: He weights, zero bias.", code=_HE),
        Remedy(text="Use an activation that is never flat.", code="nn.LeakyReLU(0.01)"),
    ),
    "saturated_activation": (
        Remedy(text="Start with smaller weights: Xavier.",
               code="torch.nn.init.xavier_uniform_(module.weight)"),
        Remedy(text="Normalise before the activation.", code="nn.BatchNorm1d(width)"),
    ),
    "nonfinite": (
        Remedy(text="Let anomaly detection name the operation.", control="detect_anomaly",
               value=True),
        Remedy(text="Keep log, sqrt and division away from zero.", code="x.clamp_min(1e-8).log()"),
    ),
    "missing_zero_grad": (
        Remedy(text="Turn zero_grad on.", control="zero_grad", value=True),
        Remedy(text="Clear gradients in every step.", code="optimizer.zero_grad()"),
    ),
    "poor_initialization": (
        Remedy(text="Initialise with He (ReLU) or Xavier (tanh, sigmoid).", code=_HE),
    ),
    "double_softmax": (
        Remedy(text="Remove the last activation: the loss takes raw scores (logits).",
               code="loss = F.cross_entropy(scores, labels)  # no softmax before"),
    ),
    "missing_activation": (
        Remedy(text="Put an activation between the two modules.", code="nn.ReLU()"),
    ),
    "unnormalized_input": (
        Remedy(text="Standardise the inputs with mean and standard deviation of the training part.",
               code="x = (x - mean) / std"),
    ),
    "class_imbalance": (
        Remedy(text="Weight the classes by their rarity.",
               code="nn.CrossEntropyLoss(weight=counts.sum() / (len(counts) * counts))"),
        Remedy(text="Draw rare classes more often.", code="WeightedRandomSampler(weights, n)"),
    ),
    "overfitting": (
        Remedy(text="Raise the weight decay.", control="weight_decay", value=1e-3),
        Remedy(text="Stop at the lowest validation loss, add data or augmentation, or dropout.",
               code="nn.Dropout(0.3)"),
    ),
    "no_shuffle": (
        Remedy(text="Shuffle the training part.", code="DataLoader(dataset, shuffle=True)"),
    ),
    "small_batch": (
        Remedy(text="Normalise with what does not depend on the batch.",
               code="nn.GroupNorm(8, channels)  # or nn.LayerNorm(width)"),
        Remedy(text="Take larger batches.", code="DataLoader(dataset, batch_size=32)"),
    ),
    "label_mismatch": (
        Remedy(text="Look at a few samples beside their labels.",
               code="for x, y in zip(inputs[:8], labels[:8]): print(y, x)"),
    ),
}  # fmt: skip


def remedies(code: str) -> tuple[Remedy, ...]:
    """The standing remedies of a code."""
    return REMEDIES.get(code, ())


def set_lr(lr: float, *, current: float | None = None) -> Remedy:
    """Sets the learning rate, rounded to one digit."""
    if lr > 0 and math.isfinite(lr):
        lr = float(f"{lr:.0e}")
    was = f" (now {short(current, 3)})" if current else ""
    return Remedy(text=f"Set the learning rate to {short(lr, 6)}{was}.", control="lr", value=lr)
