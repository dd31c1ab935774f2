"""Which servers and tools a turn may use: pure functions over core values."""
