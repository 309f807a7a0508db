"""Between capture and store: what is measured becomes rows and events, what is sent is obeyed."""
