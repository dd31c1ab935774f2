"""The credentials of MCP servers: which belong together, and which an auth type has to have."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import SecretStr

from chatd.core.errors import BadRequest, Validation
from chatd.core.oauth import AuthMethod
from chatd.store.server_settings import ServerSettings
from chatd.store.server_views import OAUTH2, OVERRIDES, View

SECRETS = {
    "oauth2_client_secret": "has_oauth2_secret",
    "api_key_value": "has_api_key",
    "custom_headers": "has_custom_headers",
    "signing_secret": "has_signing_secret",
}
"""And how a view says whether there is one."""

MANUAL = ("oauth2_client_id", "oauth2_auth_url", "oauth2_token_url")
"""All of them, or none: then they are discovered."""

CLIENTS = ("oauth2", "client_credentials")

_NEEDED = {
    "oauth2": MANUAL,
    "client_credentials": ("oauth2_client_id", "oauth2_token_url", "oauth2_client_secret"),
    "api_key": ("api_key_header", "api_key_value"),
    "custom_headers": ("custom_headers",),
}

_OWN: dict[str, tuple[str, ...]] = {
    "oauth2": (*OAUTH2, *OVERRIDES, "oauth2_client_secret"),
    "client_credentials": (
        *(name for name in OAUTH2 if name != "oauth2_auth_url"),
        *OVERRIDES,
        "oauth2_client_secret",
    ),
    "user_oidc": ("oidc_audience",),
    "api_key": ("api_key_header", "api_key_value"),
    "custom_headers": ("custom_headers",),
}
_OF_AUTH_TYPES = {
    name: tuple(kind for kind, own in _OWN.items() if name in own)
    for names in _OWN.values()
    for name in names
}
"""Which auth types each credential belongs to."""

_KEY = "-----BEGIN "


def settle(settings: ServerSettings, given: Collection[str], stored: View) -> ServerSettings:
    """The settings with what follows from them. `given`: the fields that were sent.

    Raises `BadRequest`.
    """
    if stored:
        _check_kept(settings, given)
    _check_complete(settings, given, stored)
    if settings.auth_type not in CLIENTS or to_discover(settings):
        return settings
    method = _method(settings, given, stored)
    return replace(settings, oauth2_auth_method=cast(AuthMethod, method))


def without_credentials(kept: dict[str, Any]) -> dict[str, Any]:
    """A view's values for another auth type: what belongs to the old one does not come along."""
    return {name: "" if name in _OF_AUTH_TYPES else value for name, value in kept.items()}


def to_discover(settings: ServerSettings) -> bool:
    """Nothing is said of its client: the server is asked."""
    return settings.auth_type == "oauth2" and not any(getattr(settings, name) for name in MANUAL)


def secrets_in(settings: ServerSettings) -> tuple[str, ...]:
    """The secrets that these settings set, for the audit log."""
    return tuple(
        name
        for name in SECRETS
        if filled(getattr(settings, name)) and _belongs(name, settings.auth_type)
    )


def filled(value: Any) -> bool:
    return bool(value.get_secret_value() if isinstance(value, SecretStr) else value)


def listed(names: Sequence[str], joint: str = "and") -> str:
    *first, last = names
    return f"{', '.join(first)} {joint} {last}" if first else last


def _check_complete(settings: ServerSettings, given: Collection[str], stored: View) -> None:
    auth_type = settings.auth_type
    needed = _NEEDED.get(auth_type, ())
    missing = [name for name in needed if not _present(settings, name, stored)]
    if to_discover(settings):
        own = {name for name in given if filled(getattr(settings, name))}
        if not own & (set(_OWN["oauth2"]) - {"oauth2_scopes", *OVERRIDES}):
            return
    if missing:
        raise BadRequest(
            f"The auth type {auth_type} needs {listed(missing)}.",
            validations=[
                Validation(field=name, detail=f"Required by the auth type {auth_type}.")
                for name in missing
            ],
        )


def _check_kept(settings: ServerSettings, given: Collection[str]) -> None:
    """What would not be kept must not look as if it were."""
    auth_type = settings.auth_type
    lost = [
        name for name in given if not _belongs(name, auth_type) and filled(getattr(settings, name))
    ]
    if lost:
        raise BadRequest(
            f"The auth type {auth_type} has no {listed(lost)}.",
            validations=[
                Validation(field=name, detail=f"Of {listed(_OF_AUTH_TYPES[name], 'or')}.")
                for name in lost
            ],
        )


def _method(settings: ServerSettings, given: Collection[str], stored: View) -> str:
    """How the client proves itself: as was said, else as its secret allows."""
    secret = settings.oauth2_client_secret
    text = secret.get_secret_value() if secret is not None else ""
    has_secret = _present(settings, "oauth2_client_secret", stored)
    method = settings.oauth2_auth_method
    said = method if "oauth2_auth_method" in given else ""
    if not said and secret is not None and (text.startswith(_KEY) or method == "private_key_jwt"):
        method = "private_key_jwt" if text.startswith(_KEY) else ""
    if not said and (method in ("", "none")) == has_secret:
        method = "client_secret_basic" if has_secret else "none"
    elif not said and not has_secret:
        method = "none"
    if (method == "none") == has_secret:
        what = "has no secret" if has_secret else "needs oauth2_client_secret"
        _refuse("oauth2_client_secret", f"The auth method {method} {what}.")
    if text and (method == "private_key_jwt") != _is_key(text):
        _refuse(
            "oauth2_client_secret",
            "private_key_jwt, and no other method, needs a private key in PEM: RSA of at least"
            " 2048 bits, or P-256.",
        )
    return method


def _is_key(text: str) -> bool:
    try:
        key = load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError):
        return False
    if isinstance(key, RSAPrivateKey):
        return key.key_size >= 2048
    return isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)


def _refuse(field: str, message: str) -> None:
    raise BadRequest(message, validations=[Validation(field=field, detail=message)])


def _belongs(name: str, auth_type: str) -> bool:
    return auth_type in _OF_AUTH_TYPES.get(name, (auth_type,))


def _present(settings: ServerSettings, name: str, stored: View) -> bool:
    """After the change: of a secret what was given counts, else what is stored."""
    value = getattr(settings, name)
    if value is not None or name not in SECRETS:
        return filled(value)
    return stored.get("auth_type") == settings.auth_type and bool(stored.get(SECRETS[name]))
