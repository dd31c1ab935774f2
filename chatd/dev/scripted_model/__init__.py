"""A model that does what the last user message says, behind OpenAI's chat completions API."""
