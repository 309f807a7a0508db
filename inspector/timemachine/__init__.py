"""Going back: copies of the training's state, and running one step again under every check."""
