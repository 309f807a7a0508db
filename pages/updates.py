"""How far each step moves each parameter, parameter × step."""

from inspector.ui.heatmap import heatmap_page, parameter_detail

heatmap_page(
    "Updates",
    "Size of each step's change relative to the parameter: about 0.001 is healthy for SGD; far "
    "below, a module does not learn; near 1, it is overwritten at every step.",
    {
        "Update ratio": ("update_ratio", "subject"),
        "Weight norm": ("weight_norm", "subject"),
    },
    detail=parameter_detail,
)
