"""Statistics of module outputs, module × step."""

from inspector.ui.heatmap import heatmap_page, module_detail

heatmap_page(
    "Activations",
    "Outputs of each module in training mode. A spread that shrinks row by row starves the "
    "gradient; a large share of zeros or of saturated values means dead or stuck units.",
    {
        "Spread (std)": ("activation_std", "subject"),
        "Mean": ("activation_mean", "subject"),
        "Zeros": ("activation_zeros", "subject"),
        "Saturated": ("activation_saturated", "subject"),
        "Output gradient": ("output_grad_norm", "subject"),
        "Non-finite values": ("activation_nonfinite", "subject"),
    },
    detail=module_detail,
)
