"""Rows that tests begin with, made by the store's own functions: users, models, servers, chats."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from chatd.core.chats import Actor, NewChat, NewTurn, Once
from chatd.core.messages import NewMessage, Part, TextPart, ToolCallPart
from chatd.core.tools import OfferedTool, ToolCall
from chatd.core.work import Claim, PlannedCall
from chatd.store import models, policy_state, servers, tables, users
from chatd.store.db import Database
from chatd.store.ids import new_id
from chatd.store.models import ConfigSettings, ProviderSettings
from chatd.store.secrets import KeyRing
from chatd.store.server_settings import ServerSettings
from chatd.store.submitting import Accepted, create_chat, submit_turn
from chatd.store.users import Role
from chatd.store.work import claim_turns

KEYS = KeyRing({"test": bytes(range(32))})

NOWHERE = "http://127.0.0.1:9/v1"
"""A base URL that nobody listens at."""


async def make_user(db: Database, name: str = "ada", *, role: Role = "member") -> Actor:
    async with db.transaction() as session:
        user = await users.create_user(session, name, role=role)
    return Actor(user.id, role)


async def make_model(
    db: Database, base_url: str = NOWHERE, *, enabled: bool = True, **options: Any
) -> UUID:
    """A model config with a provider of its own; the first one is the default."""
    provider = ProviderSettings("openai-compat", f"provider {new_id()}", base_url)
    config = ConfigSettings("scripted-model", 128_000, enabled=enabled, options=options)
    async with db.transaction() as session:
        made = await models.create_provider(session, KEYS, provider)
        return UUID((await models.create_config(session, UUID(made["id"]), config))["id"])


async def make_group(db: Database, name: str, *members: UUID) -> UUID:
    group_id = new_id()
    async with db.transaction() as session:
        session.add(tables.Group(id=group_id, name=name))
        await session.flush()
        session.add_all(tables.GroupMember(group_id=group_id, user_id=user) for user in members)
    return group_id


def server_settings(slug: str = "demo", **changes: Any) -> ServerSettings:
    values: dict[str, Any] = {
        "display_name": slug,
        "slug": slug,
        "transport": "streamable_http",
        "url": f"http://127.0.0.1:9/{slug}",
        "auth_type": "none",
        "availability": "default_off",
        "enabled": True,
    }
    return ServerSettings(**(values | changes))


async def make_server(db: Database, slug: str = "demo", **changes: Any) -> UUID:
    """An MCP server, enabled and `default_off` unless told otherwise."""
    async with db.transaction() as session:
        made = await servers.create_server(session, KEYS, server_settings(slug, **changes))
    return UUID(made["id"])


async def change_server(db: Database, server_id: UUID, slug: str = "demo", **changes: Any) -> None:
    """As an administrator does: all settings at once, and the policy version with them."""
    async with db.transaction() as session:
        await policy_state.bump(session)
        await servers.update_server(session, KEYS, server_id, server_settings(slug, **changes))


def said(words: str) -> list[Part]:
    """The content of a message that says this."""
    return [TextPart(type="text", text=words)]


@dataclass(frozen=True)
class Seed:
    """A user with a default model, and what they do."""

    db: Database
    actor: Actor
    model_id: UUID

    async def chat(self, words: str = "hello", once: Once | None = None, **turn: Any) -> Accepted:
        """A new chat with its first turn, pending."""
        new = NewChat(NewTurn(said(words), **turn))
        return await create_chat(self.db, self.actor, new, once, chat_id=new_id(), turn_id=new_id())

    async def chat_id(self, words: str = "hello") -> UUID:
        return UUID((await self.chat(words)).turn["chat_id"])

    async def send(
        self,
        chat_id: UUID,
        words: str = "more",
        once: Once | None = None,
        *,
        interrupt: bool = False,
        **turn: Any,
    ) -> Accepted:
        """One more turn in the chat."""
        new = NewTurn(said(words), **turn)
        return await submit_turn(
            self.db, self.actor, chat_id, new, once, turn_id=new_id(), interrupt=interrupt
        )

    async def claimed(self, words: str = "hello") -> Claim:
        """A new chat whose turn this test works on; nothing else may be pending."""
        await self.chat(words)
        return await self.claim()

    async def claim(self) -> Claim:
        (claim,) = await claim_turns(self.db, "test-worker", 1)
        return claim


async def make_seed(db: Database, base_url: str = NOWHERE) -> Seed:
    return Seed(db, await make_user(db), await make_model(db, base_url))


# --- what a worker commits


def answer(words: str, step: int = 1, *calls: PlannedCall) -> NewMessage:
    """An assistant's message, with the calls it makes."""
    content = said(words) if words else []
    content += [
        ToolCallPart(
            type="tool-call",
            tool_call_id=planned.call.id,
            tool_name=planned.call.name,
            args=planned.call.arguments,
        )
        for planned in calls
    ]
    return NewMessage("assistant", content, step, 0)


def planned_call(
    position: int = 1, step: int = 1, *, name: str = "demo__add", safe: bool = False, **more: Any
) -> PlannedCall:
    tool = OfferedTool(name, name.partition("__")[2], "", {}, safe=safe, **more)
    return PlannedCall(ToolCall(f"call-{step}-{position}", name, "{}"), step, position, tool)
