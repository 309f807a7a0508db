"""Why an operation gives NaN or infinity for finite numbers, and what helps.

Sources: definitions of the operations and formulas of their derivatives in PyTorch
(tools/autograd/derivatives.yaml); torch.finfo for the limits of float16 and float32.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from inspector.diagnosis.finding import Remedy

_BACKWARD = re.compile(r"(?<=[a-z0-9])Backward\d*$")
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Birth:
    """A way to NaN or infinity.

    Attributes:
        why: one or two sentences for a student.
        remedies: what helps there, the best first.
    """

    why: str
    remedies: tuple[Remedy, ...]


def _birth(why: str, advice: str, code: str) -> Birth:
    return Birth(f"{why} ", (Remedy(text=advice, code=code),))


_NAME_THE_LINE = Remedy(
    text="Let PyTorch name the line: once, its backward pass raises there.",
    code="torch.autograd.set_detect_anomaly(True)",
)
_SOFTMAX = _birth(
    "A row of a softmax that is −inf throughout, since all of it is masked, is 0/0, which is NaN; "
    "so is one that holds +inf.",
    "Leave something unmasked in every row, or mask with the smallest finite number.",
    "scores.masked_fill(mask, torch.finfo(scores.dtype).min)",
)
_LOG = _birth(
    "The logarithm of zero is −inf, and that of a negative number NaN.",
    "Keep the logarithm's argument above zero.",
    "x.clamp_min(1e-8).log()",
)
_ROOT = _birth(
    "The square root of a negative number is NaN, and one over the root of zero is infinite.",
    "Keep what is under the root above zero.",
    "x.clamp_min(1e-8).sqrt()",
)
_DIVISION = _birth(
    "0/0 is NaN, and any other number over zero infinite.",
    "Keep the divisor away from zero.",
    "x / y.clamp_min(1e-8)",
)
_POWER = _birth(
    "An exponential overflows: e to the power of 89 is more than float32 holds, of 12 more than "
    "float16 does.",
    "Bound the exponent, or stay in logarithms (log_softmax, logsumexp).",
    "x.clamp(max=80).exp()",
)
_ARC = _birth(
    "Arc functions are defined between −1 and 1 only, and rounding may lead out of it.",
    "Keep the argument inside.",
    "x.clamp(-1 + 1e-6, 1 - 1e-6).acos()",
)
_EMPTY = _birth(
    "The mean of nothing is 0/0, and so is the deviation of a single number.",
    "Leave out what is empty.",
    "x.mean() if x.numel() else x.sum()",
)
_IGNORED = _birth(
    "The loss is the mean over the targets that count: where all are ignore_index, or weigh "
    "nothing, it is 0/0.",
    "Leave out batches without a target that counts.",
    "if (labels != -100).any(): loss.backward()",
)
_OVERFLOW = _birth(
    "Sums and products overflow: float16 ends at 65,504, float32 at 3·10³⁸; and inf − inf is NaN.",
    "Lower the learning rate or clip gradients, and prefer bfloat16 to float16.",
    "torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
)
_SLOPE_OF_ROOT = _birth(
    "The value is finite, its derivative is not: that of a root (of a norm, a distance) at zero is "
    "infinite, and 0 · inf is NaN, so a torch.where or clamp after it does not help.",
    "Add a small number under the root.",
    "(x.square().sum(-1) + 1e-12).sqrt()",
)
_SLOPE_OF_LOG = _birth(
    "The derivative of a logarithm at zero is infinite, and 0 · inf is NaN, so a torch.where "
    "after it does not help.",
    "Choose what goes in, not what comes out.",
    "torch.where(x > 0, x, 1.0).log()",
)
_SLOPE_OF_DIVISION = _birth(
    "The derivative of x/y has y² below the line, which rounds to zero long before y does.",
    "Keep the divisor away from zero.",
    "x / y.clamp_min(1e-6)",
)
_SLOPE_OF_ARC = Birth("The derivative of an arc function at −1 and 1 is infinite. ", _ARC.remedies)
_OUTSIDE = Birth(
    "The loss may be finite while its derivative is not: that of a root or a logarithm at zero is "
    "infinite, and 0 · inf is NaN. It is computed outside the model, where no operation is seen. ",
    (
        _NAME_THE_LINE,
        *_SLOPE_OF_ROOT.remedies,
        *_SLOPE_OF_LOG.remedies,
    ),
)

_LOSS_OF_CERTAINTY = Birth(
    "The model's outputs are finite, the loss is not. They pass through a {activation}: in float32 "
    "that is exactly 1 for a score some 17 above {rest}, and 0 for one 104 below, so a loss that "
    "takes log(p) or log(1 − p) is infinite there, and NaN where 0 is multiplied with it. ",
    (
        Remedy(
            text="Give the scores, without the last activation, to the loss that applies its own.",
            code="F.binary_cross_entropy_with_logits(scores, y)  # or F.cross_entropy(scores, y)",
        ),
        *_LOG.remedies,
    ),
)
_LOSS_OUTSIDE = Birth(
    "The model's outputs are finite, the loss is not, so it arises in the loss's own operations, "
    "outside the model: a logarithm of zero, a root of a negative number, 0/0 or an overflow. ",
    (
        _NAME_THE_LINE,
        *_LOG.remedies,
        *_DIVISION.remedies,
    ),
)

_FORWARD_OF = {
    _SOFTMAX: "softmax log_softmax scaled_dot_product_attention",
    _LOG: "log log2 log10 log1p xlogy logit",
    _ROOT: "sqrt rsqrt",
    _DIVISION: "div true_divide reciprocal",
    _POWER: "exp exp2 expm1 pow cosh sinh",
    _ARC: "acos asin arccos arcsin atanh",
    _EMPTY: "mean std var std_mean var_mean",
    _IGNORED: "nll_loss nll_loss_forward nll_loss2d nll_loss2d_forward cross_entropy "
    "cross_entropy_loss",
    _OVERFLOW: "add sub mul sum mm bmm matmul addmm baddbmm linear convolution conv1d conv2d "
    "square prod cumsum",
}
_BACKWARD_OF = {
    _SLOPE_OF_ROOT: "sqrt rsqrt pow linalg_vector_norm norm cdist",
    _SLOPE_OF_LOG: "log log2 log10 log1p xlogy logit",
    _SLOPE_OF_DIVISION: "div reciprocal",
    _SLOPE_OF_ARC: "acos asin atanh",
    _POWER: "exp exp2 expm1",
    _OVERFLOW: "mul mm bmm addmm baddbmm convolution",
}
_FORWARD = {name: birth for birth, names in _FORWARD_OF.items() for name in names.split()}
_BACKWARD_NAMED = {name: birth for birth, names in _BACKWARD_OF.items() for name in names.split()}


def birth_in_loss(activation: str) -> Birth:
    """What is known where the model's outputs are finite and the loss of them is not.

    Args:
        activation: what the outputs pass through, or an empty text.
    """
    if activation not in ("sigmoid", "softmax"):
        return _LOSS_OUTSIDE
    rest = "zero" if activation == "sigmoid" else "the others"
    why = _LOSS_OF_CERTAINTY.why.format(activation=activation, rest=rest)
    return Birth(why, _LOSS_OF_CERTAINTY.remedies)


def birth(op: str) -> Birth | None:
    """What is known of an operation; None where the general words must do.

    Args:
        op: its name as the event has it: ``softmax``, ``SqrtBackward0`` for a derivative, or
            ``the loss`` where that was not looked into.
    """
    if op == "the loss":
        return _OUTSIDE
    stem = _BACKWARD.sub("", op)
    if stem != op:
        return _BACKWARD_NAMED.get(_WORDS.sub("_", stem).lower())
    return _FORWARD.get(op.removeprefix("aten::").strip("_"))
