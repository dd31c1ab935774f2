"""The schema as SQLModel tables, one file a subject; importing this registers them all."""

from chatd.store.tables.chats import Chat, ChatMessage, ToolCallRow, Turn
from chatd.store.tables.models import ModelConfig, ModelProvider
from chatd.store.tables.people import ApiToken, AuditEntry, User
from chatd.store.tables.servers import McpServerConfig, PolicyState

__all__ = [
    "ApiToken",
    "AuditEntry",
    "Chat",
    "ChatMessage",
    "McpServerConfig",
    "ModelConfig",
    "ModelProvider",
    "PolicyState",
    "ToolCallRow",
    "Turn",
    "User",
]
