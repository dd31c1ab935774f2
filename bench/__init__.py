"""Measuring what chatd adds to a turn: see README.md."""
