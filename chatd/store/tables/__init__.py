"""The schema as SQLModel tables, one file a subject; importing this registers them all."""

from chatd.store.tables.chats import Chat, ChatMessage, ToolCallRow, Turn
from chatd.store.tables.files import ChatFile, File
from chatd.store.tables.items import OpenItem
from chatd.store.tables.models import ModelConfig, ModelProvider
from chatd.store.tables.oauth import OAuthClient, OAuthState, OAuthToken, Session, UserLink
from chatd.store.tables.operating import EncryptionKey, Process
from chatd.store.tables.people import ApiToken, AuditEntry, Group, GroupMember, User
from chatd.store.tables.servers import (
    Connection,
    McpServerConfig,
    McpServerGroup,
    PolicyState,
    ToolPin,
)
from chatd.store.tables.settings import DeploymentSetting, UserSetting
from chatd.store.tables.usage import UsageEntry

__all__ = [
    "ApiToken",
    "AuditEntry",
    "Chat",
    "ChatFile",
    "ChatMessage",
    "Connection",
    "DeploymentSetting",
    "EncryptionKey",
    "File",
    "Group",
    "GroupMember",
    "McpServerConfig",
    "McpServerGroup",
    "ModelConfig",
    "ModelProvider",
    "OAuthClient",
    "OAuthState",
    "OAuthToken",
    "OpenItem",
    "PolicyState",
    "Process",
    "Session",
    "ToolCallRow",
    "ToolPin",
    "Turn",
    "UsageEntry",
    "User",
    "UserLink",
    "UserSetting",
]
