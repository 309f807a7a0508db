"""What a person does to a running model beyond its controls: remedies, faults, trials, rewinds."""
