"""Reading a turn's world in one statement: history, model, servers, journal."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, cast
from uuid import UUID

from pydantic import SecretStr

from chatd import logs
from chatd.core.errors import LeaseLost, TurnError, turn_error
from chatd.core.items import Item
from chatd.core.models import Model, ModelOptions
from chatd.core.oauth import REAUTH_REASONS
from chatd.core.servers import (
    ApiKeyAuth,
    CustomHeadersAuth,
    McpAuth,
    McpServer,
    NoAuth,
    ServiceAuth,
    UnusableAuth,
    UserAuth,
)
from chatd.core.situation import Situation, unauthorised
from chatd.core.tools import ToolCall
from chatd.core.work import Claim, JournalEntry, LoadedTurn, StoredMessage
from chatd.store import hot
from chatd.store.db import Database, load
from chatd.store.secrets import KeyRing, Tampered, UnknownKey
from chatd.store.work import patiently

SERVER_TABLE = "mcp_server_configs"
PROVIDER_TABLE = "model_providers"

Servers = dict[tuple[object, ...], McpServer]
"""Decrypted servers by id, version and keys: a version never changes its secrets, but another key
may make them readable."""

_OF_USERS = ("oauth2", "user_oidc")

_SECRETS = ("api_key_value", "custom_headers", "signing_secret")

MAX_REMEMBERED = 512

log = logs.get("loading")


@dataclass(frozen=True, slots=True)
class Policy:
    """What an administrator may change while a turn runs, as of one version."""

    version: int
    servers: tuple[McpServer, ...]
    group_ids: frozenset[UUID]


class TurnLoader:
    """Loads turns; remembers decrypted server rows, which are the same for most turns."""

    def __init__(self, db: Database, keys: KeyRing) -> None:
        self._db = db
        self._keys = keys
        self._servers: Servers = {}

    async def load(self, claim: Claim) -> LoadedTurn:
        """Raises `LeaseLost` when the turn is no longer ours."""
        row = await patiently(lambda: self._db.fetch_one(hot.LOAD, claim.turn_id, claim.lease_id))
        if row is None:
            raise LeaseLost
        model, model_error = to_model(row, self._keys)
        return LoadedTurn(
            claim=claim,
            kind=row["kind"],
            parent_chat_id=row["parent_chat_id"],
            root_chat_id=row["root_chat_id"],
            mode=row["mode"],
            title=row["title"],
            title_source=row["title_source"],
            plan_mode=row["plan_mode"] == "plan",
            reasoning_effort=row["reasoning_effort"],
            selected_ids=frozenset(row["mcp_server_ids"]),
            servers=self.read_servers(row["servers"]),
            group_ids=frozenset(row["group_ids"]),
            policy_version=row["policy_version"],
            system_prompt=row["system_prompt"],
            deployment=load(row["deployment"]) or {},
            personal=load(row["personal"]) or {},
            dynamic_tools=load(row["dynamic_tools"]),
            model=model,
            model_error=model_error,
            history=cast(list[StoredMessage], load(row["history"]) or []),
            journal=[_journal_entry(entry) for entry in load(row["journal"]) or ()],
            items=[_item(item) for item in load(row["items"]) or ()],
            notices=load(row["notices"]),
            ran_s=row["ran_seconds"],
            first_token_at=row["first_token_at"],
            entered_first=row["entered_first"],
            entered_last=row["entered_last"],
            on_auth_required=row["on_auth_required"],
        )

    async def reload_policy(self, claim: Claim) -> Policy:
        """What policy reads, again. Raises `LeaseLost`."""
        row = await patiently(lambda: self._db.fetch_one(hot.RELOAD, claim.turn_id, claim.lease_id))
        if row is None:
            raise LeaseLost
        return Policy(
            version=row["policy_version"],
            servers=self.read_servers(row["servers"]),
            group_ids=frozenset(row["group_ids"]),
        )

    def read_servers(self, value: Any) -> tuple[McpServer, ...]:
        """What `hot.SERVERS` selects, decrypted."""
        return tuple(self._server(row) for row in cast(Iterable[Any], load(value) or ()))

    def _server(self, row: dict[str, Any]) -> McpServer:
        key = (row["id"], row["version"], *(row[f"{secret}_key_id"] for secret in _SECRETS))
        server = self._servers.get(key)
        if server is None:
            if len(self._servers) >= MAX_REMEMBERED:
                self._servers.clear()
            server = self._servers[key] = to_server(row, self._keys)
        # Of what is remembered for everybody nothing may be one user's.
        return replace(server, auth=_user_auth(row)) if row["auth_type"] in _OF_USERS else server


def to_model(row: Any, keys: KeyRing) -> tuple[Model | None, TurnError | None]:
    """A turn without a model still loads: what it left open has to be closed."""
    if row["model_id"] is None or not (row["model_enabled"] and row["provider_enabled"]):
        message = "This chat's model is no longer available; choose another one."
        return None, turn_error("provider_disabled", message)
    try:
        api_key = _api_key(row, keys)
    except (UnknownKey, Tampered) as error:
        log.warning("a provider's key cannot be read", error=str(error))
        message = "The provider's API key cannot be read; an administrator has to set it again."
        return None, turn_error("missing_key", message)
    model = Model(
        config_id=row["model_id"],
        provider_id=row["provider_id"],
        provider=row["provider"],
        name=row["model"],
        base_url=row["base_url"] or None,
        api_key=api_key,
        context_limit=row["context_limit"],
        compression_threshold=row["compression_threshold"],
        options=ModelOptions.model_validate(load(row["options"])),
    )
    return model, None


def _api_key(row: Any, keys: KeyRing) -> SecretStr | None:
    if row["api_key"] is None:
        return None
    return keys.decrypt(
        row["api_key"],
        row["api_key_key_id"],
        table=PROVIDER_TABLE,
        column="api_key",
        row_id=row["provider_id"],
    )


def to_situation(row: Any, servers: Iterable[McpServer]) -> Situation:
    """How a chat, or the turn whose servers and plan mode the row has, stands to these servers."""
    return Situation(
        selected_ids=frozenset(row["mcp_server_ids"]),
        plan_mode=row["plan_mode"] == "plan",
        is_child=row["parent_chat_id"] is not None,
        explore=row["mode"] == "explore",
        group_ids=frozenset(row["group_ids"]),
        unauthorised_ids=unauthorised(servers),
    )


def to_server(row: dict[str, Any], keys: KeyRing) -> McpServer:
    """A row of `hot.SERVER_ROW` (ciphertext in base64) as the value every layer speaks."""
    return McpServer(
        id=UUID(row["id"]),
        slug=row["slug"],
        display_name=row["display_name"],
        transport=row["transport"],
        url=row["url"],
        auth=_auth(row, keys),
        version=row["version"],
        enabled=row["enabled"],
        availability=row["availability"],
        tool_allow_list=frozenset(row["tool_allow_list"]),
        tool_deny_list=frozenset(row["tool_deny_list"]),
        model_intent=row["model_intent"],
        allow_in_plan_mode=row["allow_in_plan_mode"],
        forward_coder_headers=row["forward_coder_headers"],
        trust_annotations=row["trust_annotations"],
        require_approval=row["require_approval"],
        tool_settings=row["tool_settings"],
        tool_timeout_s=row["tool_timeout_seconds"],
        access=row["access"],
        group_ids=frozenset(map(UUID, row["group_ids"] or ())),
        required_auth=row["required_auth"],
        tool_changes=row["tool_changes"],
        signing_secret=_signing_secret(row, keys),
    )


def _secret(row: dict[str, Any], column: str, keys: KeyRing) -> SecretStr:
    return keys.decrypt(
        base64.b64decode(row[column]),
        row[f"{column}_key_id"],
        table=SERVER_TABLE,
        column=column,
        row_id=UUID(row["id"]),
    )


def _signing_secret(row: dict[str, Any], keys: KeyRing) -> SecretStr | None:
    """One that cannot be read makes no credentials unusable: the receiver will refuse."""
    if row["signing_secret"] is None:
        return None
    try:
        return _secret(row, "signing_secret", keys)
    except (UnknownKey, Tampered) as error:
        log.warning("a signing secret cannot be read", server=row["slug"], error=str(error))
        return None


def _auth(row: dict[str, Any], keys: KeyRing) -> McpAuth:
    """One server whose secrets cannot be read, or of a kind not known here, costs only itself."""
    try:
        match row["auth_type"]:
            case "none":
                return NoAuth()
            case "api_key":
                return ApiKeyAuth(
                    header=row["api_key_header"], value=_secret(row, "api_key_value", keys)
                )
            case "custom_headers":
                plain = _secret(row, "custom_headers", keys)
                values = cast(dict[str, str], load(plain.get_secret_value()))
                return CustomHeadersAuth(
                    values={name: SecretStr(value) for name, value in values.items()}
                )
            case "oauth2" | "user_oidc":
                return _user_auth(row)
            case "client_credentials":
                return ServiceAuth()
            case _:
                return UnusableAuth()
    except (UnknownKey, Tampered) as error:
        log.warning("credentials cannot be read", server=row["slug"], error=str(error))
        return UnusableAuth()


def _user_auth(row: dict[str, Any]) -> UserAuth:
    connection: dict[str, Any] = row["connection"] or {}
    reason = connection.get("needs_reauth")
    known = reason is None or reason in REAUTH_REASONS  # a later release may have others
    return UserAuth(
        type=row["auth_type"],
        connection_id=UUID(connection["id"]) if connection else None,
        needs_reauth=reason if known else "unauthorized",
        audience=row["oidc_audience"],
    )


def _journal_entry(row: dict[str, Any]) -> JournalEntry:
    return JournalEntry(
        step=row["step"],
        position=row["position"],
        state=row["state"],
        call=ToolCall(row["tool_call_id"], row["tool_name"], row["arguments"] or ""),
        safe=row["safe"],
        server_id=UUID(row["server_id"]) if row["server_id"] else None,
        result=row["result"],
    )


def _item(row: dict[str, Any]) -> Item:
    return Item(
        id=UUID(row["id"]),
        step=row["step"],
        position=row["position"],
        kind=row["kind"],
        state=row["state"],
        data=row["data"],
        memory=row["memory"],
        answer=row["answer"],
        answered_by=UUID(row["answered_by"]) if row["answered_by"] else None,
    )
