"""The front door: HTTP in, rows and wake-ups out. It never runs a turn."""
