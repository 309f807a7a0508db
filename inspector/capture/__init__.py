"""Measuring one model while it trains: hooks, statistics, schedules. Knows nothing of the store."""
