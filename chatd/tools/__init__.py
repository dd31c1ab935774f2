"""Built-in tools: the table that policy offers and the loop runs. None exist yet."""
