"""What the backward of each common operation does, in words and as a formula (plain data).

In formulas g is the gradient that arrives, ∂L/∂out; a, b, … are the inputs and out is the output.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry.

    Attributes:
        forward: the operation as a formula.
        words: one or two sentences.
        formulas: the gradient of each input, in the order of ``inputs``.
        inputs: names of the differentiable inputs, in the engine's order.
    """

    forward: str
    words: str
    formulas: tuple[str, ...]
    inputs: tuple[str, ...] = ("a",)


_POINTWISE: dict[str, tuple[str, str, str]] = {
    "Neg": ("out = −a", "The sign turns round.", "−g"),
    "Exp": ("out = eᵃ", "The exponential is its own derivative: g times the output.", "g · out"),
    "Log": ("out = ln a", "Divides by the input: near zero the gradient explodes, and below zero "
            "the logarithm itself is NaN.", "g / a"),
    "Log1P": ("out = ln(1 + a)", "Divides by 1 + a.", "g / (1 + a)"),
    "Log2": ("out = log₂ a", "Divides by the input and ln 2.", "g / (a · ln 2)"),
    "Sqrt": ("out = √a", "Divides by twice the root: at zero that is infinite.", "g / (2 · out)"),
    "Rsqrt": ("out = 1 / √a", "Minus half the cube of the output.", "−½ · g · out³"),
    "Reciprocal": ("out = 1 / a", "Minus the square of the output.", "−g · out²"),
    "Sin": ("out = sin a", "The derivative of sine is cosine.", "g · cos a"),
    "Cos": ("out = cos a", "The derivative of cosine is minus sine.", "−g · sin a"),
    "Tanh": ("out = tanh a", "At most 1, and close to 0 where the output is near ±1: a saturated "
             "tanh lets nothing through.", "g · (1 − out²)"),
    "Sigmoid": ("out = σ(a)", "At most a quarter, and close to 0 where the output is near 0 or 1: "
                "a saturated sigmoid lets nothing through.", "g · out · (1 − out)"),
    "Relu": ("out = max(a, 0)", "Passes where the input was positive, is stopped elsewhere.",
             "g where a > 0, else 0"),
    "LeakyRelu": ("out = a, or s · a below 0", "Passes where the input was positive, is scaled by "
                  "the slope elsewhere.", "g where a > 0, else s · g"),
    "Elu": ("out = a, or α(eᵃ − 1) below 0", "Passes where the input was positive, fades below.",
            "g where a > 0, else g · (out + α)"),
    "Gelu": ("out = a · Φ(a)", "Φ is the normal distribution function, φ its density.",
             "g · (Φ(a) + a · φ(a))"),
    "Silu": ("out = a · σ(a)", "The product rule on a and its sigmoid.",
             "g · σ(a) · (1 + a · (1 − σ(a)))"),
    "Softplus": ("out = ln(1 + eᵃ)", "The derivative of softplus is the sigmoid.", "g · σ(a)"),
    "Abs": ("out = |a|", "The sign of the input; 0 at 0.", "g · sign a"),
    "Sign": ("out = sign a", "Flat everywhere: nothing passes.", "0"),
    "Clamp": ("out = a kept within limits", "Passes inside the limits, is stopped outside.",
              "g where low ≤ a ≤ high, else 0"),
    "Hardtanh": ("out = a kept within limits", "Passes inside the limits, is stopped outside.",
                 "g inside the limits, else 0"),
    "Softmax": ("outᵢ = eᵃⁱ / Σ eᵃʲ", "Each output depends on every input of its row: what the "
                "row receives on average is taken off.", "out · (g − Σ g·out)"),
    "LogSoftmax": ("outᵢ = aᵢ − ln Σ eᵃʲ", "The gradient minus its row sum shared out by the "
                   "probabilities: one NaN in a row spoils the whole row.", "g − e^out · Σ g"),
    "Logsumexp": ("out = ln Σ eᵃ", "Shared out by the softmax of the inputs.", "g · e^(a − out)"),
    "NllLoss": ("out = −mean of a[target]", "Each sample's target class receives −1/n, every other "
                "class 0.", "−g / n at the target, else 0"),
    "Sum": ("out = Σ a", "Every element that was added receives the same gradient.",
            "g, repeated"),
    "Mean": ("out = (1/n) Σ a", "Every element receives the same share.", "g / n, repeated"),
    "Var": ("out = variance of a", "The distance of each element from the mean.",
            "g · 2 (a − mean) / (n − 1)"),
    "Std": ("out = standard deviation of a", "The distance from the mean over the deviation: "
            "infinite when all elements are equal.", "g · (a − mean) / ((n − 1) · out)"),
    "LinalgVectorNorm": ("out = ‖a‖", "The unit vector along a.", "g · a / out"),
    "Norm": ("out = ‖a‖", "The unit vector along a.", "g · a / out"),
    "Max": ("out = max a", "Only the largest element receives it.", "g at the maximum, else 0"),
    "Min": ("out = min a", "Only the smallest element receives it.", "g at the minimum, else 0"),
    "Amax": ("out = max a", "The largest elements share it.", "g at the maximum, else 0"),
    "Amin": ("out = min a", "The smallest elements share it.", "g at the minimum, else 0"),
    "MaxPool2DWithIndices": ("out = largest in each window", "Each window's gradient goes to its "
                             "largest element.", "Σ g of the windows it won"),
    "AvgPool2D": ("out = mean of each window", "Each window's gradient is shared equally.",
                  "Σ g / window"),
    "AdaptiveAvgPool2D": ("out = mean of each region", "Each region's gradient is shared equally.",
                          "g / region"),
    "MkldnnAdaptiveAvgPool2D": ("out = mean of each region", "Each region's gradient is shared "
                                "equally.", "g / region"),
    "Cumsum": ("outᵢ = a₁ + … + aᵢ", "Each element is in all later sums: the sum runs backwards.",
               "Σ g from i on"),
    "Prod": ("out = Π a", "The product of all the others.", "g · out / a"),
    "T": ("out = aᵀ", "Transposed back.", "gᵀ"),
    "Transpose": ("out = aᵀ", "Transposed back.", "gᵀ"),
    "Permute": ("out = a, dimensions reordered", "The dimensions go back to where they were.",
                "g, reordered back"),
    "View": ("out = a in another shape", "The same numbers in the old shape.", "g in a's shape"),
    "UnsafeView": ("out = a in another shape", "The same numbers in the old shape.",
                   "g in a's shape"),
    "ReshapeAlias": ("out = a in another shape", "The same numbers in the old shape.",
                     "g in a's shape"),
    "Squeeze": ("out = a without a dimension of 1", "The dimension comes back.", "g in a's shape"),
    "Unsqueeze": ("out = a with a dimension of 1", "The dimension goes away.", "g in a's shape"),
    "Expand": ("out = a, repeated", "Each number was used several times: its gradients are summed.",
               "Σ g over the copies"),
    "Repeat": ("out = a, repeated", "Each number was used several times: its gradients are summed.",
               "Σ g over the copies"),
    "Select": ("out = a[i]", "The chosen part receives it; zeros everywhere else.",
               "g at i, else 0"),
    "Slice": ("out = a[i:j]", "The chosen part receives it; zeros everywhere else.",
              "g at i:j, else 0"),
    "Index": ("out = a[indices]", "Added up where the elements were taken from.",
              "Σ g at the indices"),
    "Gather": ("out = a[…, index]", "Added up where the elements were taken from.",
               "Σ g at the indices"),
    "Embedding": ("out = rows of a", "Each row adds up the gradients of all places that used it; "
                  "unused rows receive 0.", "Σ g over the uses of a row"),
    "Clone": ("out = a", "Passed on unchanged.", "g"),
    "ToCopy": ("out = a in another dtype", "Brought back to the dtype of the input.", "g"),
    "Copy": ("out = a", "Passed on unchanged.", "g"),
    "Contiguous": ("out = a", "Passed on unchanged.", "g"),
    "NativeDropout": ("out = a · mask / (1 − p)", "The same mask as in the forward pass.",
                      "g · mask / (1 − p)"),
    "Triu": ("out = upper triangle of a", "Only the upper triangle passes.", "triu(g)"),
    "Tril": ("out = lower triangle of a", "Only the lower triangle passes.", "tril(g)"),
    "MaskedFill": ("out = a, filled where masked", "Stopped where the value was replaced.",
                   "g where not masked, else 0"),
}  # fmt: skip

_SEVERAL: dict[str, Rule] = {
    "Add": Rule("out = a + b", "Addition hands the gradient on, unchanged, to both.",
                ("g", "g"), ("a", "b")),
    "Sub": Rule("out = a − b", "Subtraction hands it on to both; the second gets it negated.",
                ("g", "−g"), ("a", "b")),
    "Rsub": Rule("out = b − a", "Subtraction hands it on negated.", ("−g", "g"), ("a", "b")),
    "Mul": Rule("out = a · b", "Each factor receives the gradient times the other factor.",
                ("g · b", "g · a"), ("a", "b")),
    "Div": Rule("out = a / b", "Divides by b; the divisor itself receives −a/b² of it: with b near "
                "zero both explode.", ("g / b", "−g · a / b²"), ("a", "b")),
    "Pow": Rule("out = aⁿ", "The power rule: bring the exponent down, lower it by one.",
                ("g · n · aⁿ⁻¹", "g · out · ln a"), ("a", "n")),
    "PowBackward2": Rule("out = bⁿ", "The number is fixed, the exponent moves.",
                         ("g · out · ln b",), ("n",)),
    "Maximum": Rule("out = max(a, b)", "The larger one receives it; equal ones share it.",
                    ("g where a > b", "g where b > a"), ("a", "b")),
    "Minimum": Rule("out = min(a, b)", "The smaller one receives it; equal ones share it.",
                    ("g where a < b", "g where b < a"), ("a", "b")),
    "Where": Rule("out = a where condition, else b",
                  "Each element goes to the one that was chosen. Mind: "
                  "0 · NaN of the other branch is NaN.",
                  ("g where condition, else 0", "g where not, else 0"), ("a", "b")),
    "Mm": Rule("OUT = A · B", "Matrix product: each factor receives the gradient times the other "
               "one, transposed.", ("G · Bᵀ", "Aᵀ · G"), ("A", "B")),
    "Bmm": Rule("OUT = A · B, batch by batch", "Matrix product: each factor receives the gradient "
                "times the other one, transposed.", ("G · Bᵀ", "Aᵀ · G"), ("A", "B")),
    "Mv": Rule("out = A · b", "The matrix receives an outer product.",
               ("g ⊗ b", "Aᵀ · g"), ("A", "b")),
    "Dot": Rule("out = a · b (dot product)", "Each vector receives the other one, scaled.",
                ("g · b", "g · a"), ("a", "b")),
    "Addmm": Rule("OUT = c + A · B (a linear layer: c is its bias, A its input, Bᵀ its weight)",
                  "The bias receives the gradient summed over the batch, the input the gradient "
                  "times the weight, the weight the input transposed times the gradient.",
                  ("Σ G over the batch", "G · Bᵀ", "Aᵀ · G"), ("c", "A", "B")),
    "Convolution": Rule("out = w ∗ a + bias", "The input receives the gradient correlated with the "
                        "flipped kernel, the kernel the correlation of input and gradient, the "
                        "bias the sum over batch and pixels.",
                        ("g ∗ flipped w", "a ∗ g", "Σ g"), ("a", "w", "bias")),
    "NativeBatchNorm": Rule("out = γ · (a − mean) / √(var + ε) + β", "Mean and variance depend on "
                            "the whole batch, so each sample receives a part of the others' "
                            "gradients.",
                            ("γ/√(var+ε) · (g − mean g − â · mean(g·â))", "Σ g·â", "Σ g"),
                            ("a", "γ", "β")),
    "NativeLayerNorm": Rule("out = γ · (a − mean) / √(var + ε) + β", "Mean and variance depend on "
                            "the whole row, so each element receives a part of the others' "
                            "gradients.",
                            ("γ/√(var+ε) · (g − mean g − â · mean(g·â))", "Σ g·â", "Σ g"),
                            ("a", "γ", "β")),
    "MseLoss": Rule("out = mean (a − target)²", "Twice the error over the number of elements.",
                    ("g · 2 (a − target) / n", "−g · 2 (a − target) / n"), ("a", "target")),
    "SmoothL1Loss": Rule("out = Huber(a − target)", "The error where it is small, its sign where "
                         "it is large.", ("g · clip(a − target) / n",) * 2, ("a", "target")),
    "BinaryCrossEntropyWithLogits": Rule("out = mean BCE(σ(a), target)",
                                         "Probability minus target: never saturates.",
                                         ("g · (σ(a) − target) / n", ""), ("a", "target")),
    "Cat": Rule("out = inputs side by side", "Each input receives its own piece.",
                ("its piece of g",), ("a", "b", "c", "d")),
    "Stack": Rule("out = inputs stacked", "Each input receives its own piece.",
                  ("its piece of g",), ("a", "b", "c", "d")),
    "Addcmul": Rule("out = a + s · b · c", "Sum and product rule.",
                    ("g", "s · g · c", "s · g · b"), ("a", "b", "c")),
    "Prelu": Rule("out = a, or w · a below 0", "The slope receives the negative inputs.",
                  ("g where a > 0, else w · g", "Σ g · min(a, 0)"), ("a", "w")),
    "ScaledDotProductFlashAttentionForCpu": Rule(
        "OUT = softmax(Q · Kᵀ / √d) · V", "Product rule twice around a softmax, in one kernel.",
        ("through softmax and K", "through softmax and Q", "Pᵀ · G"), ("Q", "K", "V")),
}  # fmt: skip

ACCUMULATE = Rule(
    ".grad ← .grad + g",
    "The end of the way: the gradient is added to what .grad already holds. Only "
    "optimizer.zero_grad() empties it.",
    ("g",),
    ("leaf",),
)


def rule_of(op: str) -> Rule | None:
    """The rule of a node such as ``PowBackward0`` or ``torch::autograd::AccumulateGrad``."""
    whole = op.rpartition("::")[2]
    if whole in _SEVERAL:  # a variant that differs from the others of its name
        return _SEVERAL[whole]
    name = re.sub(r"Backward\d*$", "", whole)
    if name == "AccumulateGrad":
        return ACCUMULATE
    found = _SEVERAL.get(name)
    if found is None and name in _POINTWISE:
        forward, words, formula = _POINTWISE[name]
        found = Rule(forward, words, (formula,))
    return found
