"""A sequence module that takes the samples of a batch for the steps of a sequence.

Statistic: first input of a module whose ``batch_first`` is off, while the model gives one row
for each sample: as many steps as the batch has samples, and another number of samples. Exact.
Threshold: none.
Source: documentation of torch.nn.LSTM and torch.nn.MultiheadAttention: (steps, batch, features)
unless ``batch_first``.
False alarms: attention between samples on purpose (Goyal et al. 2021 and Kossen et al. 2021 do so).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inspector.diagnosis.drawing import as_bars
from inspector.diagnosis.finding import Evidence, Finding, Remedy
from inspector.diagnosis.observations import Observations
from inspector.diagnosis.registry import Thresholds, register

CODE = "mixed_samples"


@register(CODE)
def check(run: Observations, _limits: Thresholds) -> Iterator[Finding]:
    samples = _samples(run)
    mixing = [row for row in run.modules if _mixes(row, samples)]
    if not mixing:
        return
    module = mixing[0]
    kinds = {row["path"]: str(row["type"]) for row in run.modules}
    above = kinds.get(module["path"].rpartition(".")[0], "")
    kind = above if above.startswith("Transformer") else module["type"]
    steps, batch, width = module["inputs"][0]
    others = f", as do {len(mixing)} modules in all" if len(mixing) > 1 else ""
    yield Finding(
        code=CODE,
        level="warning",
        title=f"{module['path'] or 'The model'} takes the {samples} samples of a batch for the "
        f"steps of a sequence{others}.",
        confidence=0.9,
        module=module["path"],
        evidence=(
            Evidence(
                statistic=f"steps, as it reads its input of {steps} × {batch} × {width}",
                value=float(steps),
                drawing=as_bars(
                    [
                        ("steps to it", float(steps)),
                        ("samples to it", float(batch)),
                        ("real samples", float(samples)),
                    ],
                    "steps, samples",
                    marked=("steps to it",),
                ),
            ),
        ),
        explanation=(
            f"{kind} expects steps first and samples second, unless batch_first is set. As it is, "
            "what it gives for a sample depends on the others that happen to be in the batch, and "
            "between the steps of a sample nothing flows."
        ),
        reference="PyTorch documentation: nn.LSTM, nn.MultiheadAttention (batch_first)",
        remedies=(
            Remedy(text="Say that the batch is first.", code=f"nn.{kind}(…, batch_first=True)"),
            Remedy(text="Or put the steps first.", code="x = x.transpose(0, 1)"),
        ),
    )


def _samples(run: Observations) -> int:
    """Samples in a batch, where the model gives one row for each; 0 where that is not certain.

    One that is given steps first and gives a number for each step and sample looks alike.
    """
    inputs = run.part("inputs").get("raw_shape") or []
    outputs = run.part("loss", "outputs").get("shape") or run.targets.get("outputs_shape") or []
    if len(inputs) < 2 or len(outputs) not in (1, 2) or inputs[0] != outputs[0]:
        return 0
    of_steps = len(outputs) == 2 and outputs[1] == inputs[1]
    return 0 if of_steps and len(run.targets.get("shape") or [0, 0]) > 1 else int(inputs[0])


def _mixes(row: dict[str, Any], samples: int) -> bool:
    shape = (row.get("inputs") or [[]])[0]
    if row.get("batch_first") is not False or len(shape) != 3:
        return False
    steps, batch = shape[0], shape[1]
    return bool(steps == samples > 1 and batch not in (1, samples))
