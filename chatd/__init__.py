"""chatd: a chat-orchestration backend. Layers and their order: docs/architecture.md."""
