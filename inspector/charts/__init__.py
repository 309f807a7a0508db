"""Chart specifications: what is drawn, with which title, unit and hover; pure data."""
