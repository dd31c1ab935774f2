"""The arq worker process: wake-ups, leases, drain, sweep."""
