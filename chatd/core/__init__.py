"""Values, events and errors that every layer speaks; pydantic and the standard library only."""
