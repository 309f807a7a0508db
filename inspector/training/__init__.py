"""The built-in trainer: a task (model, data, loss, optimizer) and a plain loop around watch()."""
