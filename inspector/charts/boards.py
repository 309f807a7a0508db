"""The boards of the app: which charts each page shows."""

from __future__ import annotations

from inspector.charts.specs import Chart, Line, lines, matrix, number


def overview() -> tuple[Chart, ...]:
    """The live page: how the run does as a whole."""
    return (
        lines(
            Line("loss", label="training"),
            Line("val_loss", label="validation"),
            title="Loss",
            smooth=0.9,
            wide=True,
            height=280,
        ),
        lines(
            Line("accuracy", label="training"),
            Line("val_accuracy", label="validation"),
            title="Accuracy",
            smooth=0.9,
        ),
        lines("lr"),
        lines(
            Line("total_grad_norm", label="before clipping"),
            Line("clipped_grad_norm", label="after"),
            title="Gradient norm",
        ),
        lines("total_update_ratio"),
        number("clipped", title="Steps clipped", reading="share"),
        number("samples_per_s"),
        number("data_seconds"),
        number("memory"),
        number("gpu_memory"),
    )


def gradients() -> tuple[Chart, ...]:
    """Gradient norms, module × step."""
    return (matrix("grad_norm", by="module"),)


def updates() -> tuple[Chart, ...]:
    """Update ratios, parameter × step."""
    return (matrix("update_ratio"),)


def activations() -> tuple[Chart, ...]:
    """Statistics of module outputs, module × step."""
    return (
        matrix("activation_std"),
        matrix("activation_zeros"),
        matrix("activation_saturated"),
        matrix("activation_mean"),
    )


def parameter(name: str) -> tuple[Chart, ...]:
    """History of one parameter."""
    return (
        lines(
            Line("grad_norm", name, "before clipping"),
            Line("grad_norm_clipped", name, "after clipping"),
            title=f"Gradient norm of {name}",
        ),
        lines(Line("weight_norm", name)),
        lines(Line("update_ratio", name)),
    )


def module(path: str) -> tuple[Chart, ...]:
    """History of one module's output."""
    return (
        lines(
            Line("activation_mean", path, "mean"),
            Line("activation_std", path, "std"),
            title=f"Activations of {path or 'the model'}",
        ),
        lines(
            Line("activation_zeros", path, "zeros"),
            Line("activation_saturated", path, "saturated"),
            title=f"Share of zeros and saturated values in {path or 'the model'}",
        ),
        lines(Line("output_grad_norm", path)),
    )
