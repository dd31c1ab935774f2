"""MCP servers: sessions, tool lists, results. The only owner of the SDK beside hosted and dev."""
