"""One turn, top to bottom: the only package that sees everything below it."""
