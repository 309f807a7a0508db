"""A run as a plain PyTorch script that needs nothing of this package."""
