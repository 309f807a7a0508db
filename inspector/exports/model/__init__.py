"""The trained model in other formats; the only part of the exports that imports torch."""
