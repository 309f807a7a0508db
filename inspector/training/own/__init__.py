"""What users bring themselves: models, weights, data and training steps."""
