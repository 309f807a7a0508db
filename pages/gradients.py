"""Gradient norms, module × step."""

from inspector.ui.heatmap import heatmap_page, parameter_detail

heatmap_page(
    "Gradients",
    "Each row is a module in the order of the model; a colour holds from one measurement to the "
    "next. Rows that darken towards the input: the gradient vanishes. Rows that glow: it explodes.",
    {
        "Norm": ("grad_norm", "module"),
        "After clipping": ("grad_norm_clipped", "module"),
        "Norm, each parameter": ("grad_norm", "subject"),
        "Largest value": ("grad_max", "subject"),
        "Non-finite values": ("grad_nonfinite", "subject"),
    },
    detail=parameter_detail,
)
