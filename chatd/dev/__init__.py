"""What `chatd dev` and the tests run on: embedded services, a scripted model, a demo MCP server."""
