"""Run directories on disk: one writer per rank, any number of readers, one door for commands."""
