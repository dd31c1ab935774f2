"""What an MCP server asks for and who issues it, as administrators set it; secrets are sealed."""

from collections.abc import Mapping

import orjson
from pydantic import SecretStr

from chatd.store import tables
from chatd.store.secrets import KeyRing
from chatd.store.server_settings import ServerSettings
from chatd.store.server_views import DISCOVERED, OAUTH2

_TABLE = "mcp_server_configs"
_FOUND = ("registered", "metadata_document")
"""Clients that discovery has come to by itself."""


def set_credentials(row: tables.McpServerConfig, keys: KeyRing, new: ServerSettings) -> None:
    """Only those of the auth type: what belongs to another one must not come back later."""
    oauth2 = new.auth_type in ("oauth2", "client_credentials")
    _forget_discovered(row, new)
    for name in OAUTH2:
        setattr(row, name, getattr(new, name) if oauth2 else "")
    if oauth2:
        _set_overrides(row, new)
    row.oidc_audience = new.oidc_audience if new.auth_type == "user_oidc" else ""
    _seal(row, keys, "oauth2_client_secret", _plain(new.oauth2_client_secret) if oauth2 else "")
    api_key = new.auth_type == "api_key"
    row.api_key_header = new.api_key_header if api_key else ""
    _seal(row, keys, "api_key_value", _plain(new.api_key_value) if api_key else "")
    own = new.auth_type == "custom_headers"
    _seal(row, keys, "custom_headers", _headers(new.custom_headers) if own else "")
    _seal(row, keys, "signing_secret", _plain(new.signing_secret))


def _set_overrides(row: tables.McpServerConfig, new: ServerSettings) -> None:
    for name, value in overridden(row, new).items():
        setattr(row, name, value)
    row.oauth2_issuer_set = bool(new.oauth2_issuer)
    row.oauth2_resource_set = bool(new.oauth2_resource)


def overridden(row: tables.McpServerConfig, new: ServerSettings) -> dict[str, str]:
    """What counts then instead of what is discovered. An issuer that was discovered is replaced
    only by discovering again: client and tokens are bound to its name."""
    values = {"oauth2_resource": new.oauth2_resource}
    if row.oauth2_client_source not in _FOUND:
        values["oauth2_issuer"] = new.oauth2_issuer
    for name, wanted in values.items():
        if not wanted and not getattr(row, f"{name}_set"):
            values[name] = getattr(row, name)
    return values


def _forget_discovered(row: tables.McpServerConfig, new: ServerSettings) -> None:
    """What is set by hand is no longer as discovery found it."""
    if new.auth_type != "oauth2":
        for name in DISCOVERED:
            setattr(row, name, "")
        row.oauth2_issuer_set = row.oauth2_resource_set = row.oauth2_sends_issuer = False
        row.discovered_at = None
    elif _moved(row, new):
        row.oauth2_issuer = row.oauth2_registration_url = ""
        row.oauth2_sends_issuer = False
    if rewired(row, new):
        row.oauth2_client_source, row.discovered_at = "", None


def _moved(row: tables.McpServerConfig, new: ServerSettings) -> bool:
    """To another authorization server."""
    wired = ("oauth2_auth_url", "oauth2_token_url")
    return any(getattr(row, name) != getattr(new, name) for name in wired)


def rewired(row: tables.McpServerConfig, new: ServerSettings) -> bool:
    """Another client, or the client of another server."""
    return row.oauth2_client_id != new.oauth2_client_id or _moved(row, new)


def renamed(row: tables.McpServerConfig, new: ServerSettings) -> bool:
    """The authorization server of a client that was set by hand is called something else."""
    return overridden(row, new).get("oauth2_issuer", row.oauth2_issuer) != row.oauth2_issuer


def asked_anew(row: tables.McpServerConfig, new: ServerSettings) -> bool:
    """A token that no user has granted would be another one."""
    names = (*OAUTH2, "oauth2_send_resource", "oidc_audience", "url")
    return (
        new.oauth2_client_secret is not None
        or any(getattr(row, name) != getattr(new, name) for name in names)
        or any(getattr(row, name) != value for name, value in overridden(row, new).items())
    )


def _seal(row: tables.McpServerConfig, keys: KeyRing, column: str, secret: str | None) -> None:
    """None: as it is; empty: none any more."""
    if secret is None:
        return
    sealed = None, None
    if secret:
        sealed = keys.encrypt(secret, table=_TABLE, column=column, row_id=row.id)
    setattr(row, column, sealed[0])
    setattr(row, f"{column}_key_id", sealed[1])


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def _headers(values: Mapping[str, SecretStr] | None) -> str | None:
    if values is None:
        return None
    plain = {name: value.get_secret_value() for name, value in values.items()}
    return orjson.dumps(plain).decode() if plain else ""
