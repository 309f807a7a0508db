"""Training in eval mode, or validating in train mode.

Statistic: passes with gradients while the model is in eval mode although dropout or batch
normalisation is in it; passes without gradients in train mode at the steps of validation. Exact.
Source: TheDeepChecker compares the losses of both modes (gap > 50 %); ours reads the flags.
False alarms: batch normalisation frozen on purpose (a note, unless the whole model is in eval
mode); Monte-Carlo dropout; a teacher or generator run without gradients in every step is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from inspector.diagnosis.drawing import Drawing, over_steps
from inspector.diagnosis.finding import Evidence, Finding, Remedy
from inspector.diagnosis.observations import Observations
from inspector.diagnosis.registry import Thresholds, register
from inspector.events import StepSkipped

CODE = "mode_mistake"
_LONG = 50  # training passes in train mode, after which the mistake is one of the past


@register(CODE, eval_passes=5, often=0.5)
def check(run: Observations, limits: Thresholds) -> Iterator[Finding]:
    modes = run.part("modes")
    if not modes.get("sensitive"):
        return
    module = str(modes["sensitive"][0])
    in_eval, passes = list(modes["eval_steps"]), int(modes["training_passes"])
    if len(in_eval) >= min(limits["eval_passes"], 0.5 * passes) and in_eval:
        over = modes.get("passes_since_eval", 0) >= _LONG and len(in_eval) > limits["eval_passes"]
        yield _training_in_eval(module, in_eval, over=over)
        return
    validated = _validation_in_train(run, limits["often"])
    if validated:
        yield validated
    elif modes["partly_eval"] and not run.set_on_purpose("eval_modules"):
        part = next(iter(modes["partly_eval"]))
        yield Finding(
            code=CODE,
            level="note",
            title="Some modules stay in eval mode during training; fine if frozen on purpose.",
            confidence=0.3,
            module=part,
            evidence=(Evidence(statistic="modules in eval mode in training passes",
                               value=float(len(modes["partly_eval"]))),),
        )  # fmt: skip


def _training_in_eval(module: str, steps: list[int], *, over: bool) -> Finding:
    return Finding(
        code=CODE,
        level="note" if over else "warning",
        title=f"The model trained in eval mode from step {steps[0]} to {steps[-1]}."
        if over
        else f"The model trains in eval mode from step {steps[0]} on.",
        confidence=0.4 if over else 0.93,
        module=module,
        step=steps[0],
        evidence=(
            Evidence(
                statistic="steps whose training pass was in eval mode",
                value=float(len(steps)),
                quantity="loss",
                first=steps[0],
                last=steps[-1],
                drawing=_counted(steps, "training passes in eval mode so far"),
            ),
        ),
        explanation=(
            "In eval mode dropout does nothing and batch normalisation uses running averages "
            "that no longer follow the data, so regularisation is lost and activations drift. "
            "It is often forgotten after validation."
        ),
        reference="PyTorch: Module.train and Module.eval; TheDeepChecker",
        remedies=(Remedy(text="Switch back before each epoch.", code="model.train()"),),
    )


def _counted(steps: list[int], axis: str) -> Drawing:
    return over_steps([0, *steps], range(len(steps) + 1), axis, (0.0, "as it should be"))


def _validation_in_train(run: Observations, often: float) -> Finding | None:
    modes = run.part("modes")
    steps = list(modes["no_grad_train_steps"])
    tried_again = {step for step, _ in run.events_of(StepSkipped)}
    repeated = [s for s in modes.get("repeated_pass_steps", ()) if s not in tried_again]
    validations = set(run.series("val_loss").steps.tolist())
    validations |= set(run.series("val_accuracy").steps.tolist())
    if not steps and len(repeated) <= often * max(run.last_step, 1):
        steps = [s for s in repeated if validations & {s - 1, s}]  # without no_grad(), but then
    at_validation = [s for s in steps if validations & {s - 1, s}]
    rare = len(steps) <= often * max(run.last_step, 1)
    if at_validation and len(at_validation) >= 0.5 * len(validations):
        confidence = 0.9
    elif steps and rare and not validations and not modes["no_grad_eval_steps"]:
        confidence = 0.6
    else:
        return None
    return Finding(
        code=CODE,
        level="warning",
        title="Validation runs in train mode: dropout is active, batch statistics leak.",
        confidence=confidence,
        module=str(modes["sensitive"][0]),
        step=steps[0],
        evidence=(
            Evidence(
                statistic="passes without gradients in train mode",
                value=float(len(steps)),
                quantity="val_loss",
                first=steps[0],
                last=steps[-1],
                drawing=_counted(steps, "validation passes in train mode so far"),
            ),
        ),
        explanation=(
            "In train mode dropout keeps dropping and batch normalisation takes its statistics "
            "from the validation batch, and updates its running averages with them: the figure "
            "is noisy, and the model has seen the validation data."
        ),
        reference="PyTorch: Module.train and Module.eval; TheDeepChecker",
        remedies=(
            Remedy(text="Switch around validation.", code="model.eval(); ...; model.train()"),
        ),
    )
