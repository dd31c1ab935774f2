"""What the keywords of JSON Schema hold, as far as everybody who walks a schema must know."""

DATA = frozenset({"const", "default", "enum", "example", "examples"})
"""Keywords whose values are data: a `$ref` there is not a reference."""

NAMES = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose keys are names, not keywords."""
