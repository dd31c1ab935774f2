"""OAuth as this project speaks it: who issues, as whom we ask, and what was handed out."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args
from uuid import UUID

from pydantic import SecretStr

AuthMethod = Literal["none", "client_secret_post", "client_secret_basic", "private_key_jwt"]
"""How a client proves itself to a token endpoint (RFC 7591, section 2; RFC 7523)."""

ClientSource = Literal["manual", "metadata_document", "registered"]
"""Where a client id comes from: an administrator, the document we host, RFC 7591."""

ReauthReason = Literal[
    "invalid_grant",
    "expired",
    "client_changed",
    "insufficient_scope",
    "unauthorized",
    "tampered",
    "refresh_lost",
    "refresh_refused",
]
"""Why a user has to connect again. `expired`: there was nothing to refresh with. `refresh_lost`: a
process died after the server had rotated the refresh token and before it was saved.
`refresh_refused`: refused several times, in words that may mean anything."""

DOUBTFUL: tuple[ReauthReason, ...] = ("unauthorized", "refresh_refused", "tampered")
"""Reasons that may be a server's failure, or a key's that is missing, rather than the token's end:
such a token is tried again after a while. Every other reason is final."""

CLIENT_REFUSALS = frozenset(
    {"invalid_client", "incorrect_client_credentials", "invalid_client_id", "bad_client_secret"}
)
"""Error codes: the client is unknown, or its proof is wrong. The second one is GitHub's, the others
Slack's."""

AUTH_METHODS: tuple[str, ...] = get_args(AuthMethod)
CLIENT_SOURCES: tuple[str, ...] = get_args(ClientSource)
REAUTH_REASONS: tuple[str, ...] = get_args(ReauthReason)

CALLBACK_PATH = "/api/experimental/mcp/servers/{server}/oauth2/callback"
"""Frozen: authorization servers keep it as the redirect URI."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """An authorization server, as its metadata (RFC 8414 or OpenID Connect Discovery) or an
    administrator describes it."""

    issuer: str
    """Exactly as it says it itself; empty for one that was configured by hand without it."""
    authorization_endpoint: str
    token_endpoint: str
    registration_endpoint: str = ""
    revocation_endpoint: str = ""
    jwks_uri: str = ""
    userinfo_endpoint: str = ""
    end_session_endpoint: str = ""
    scopes_supported: tuple[str, ...] = ()
    auth_methods: tuple[str, ...] = ()
    """`token_endpoint_auth_methods_supported`; empty: it does not say."""
    signing_algorithms: tuple[str, ...] = ()
    """`id_token_signing_alg_values_supported`."""
    sends_issuer: bool = False
    """Its answers carry `iss` (RFC 9207), so one without it is refused."""
    takes_metadata_documents: bool = False
    """A client id may be the URL of a document (CIMD)."""


@dataclass(frozen=True, slots=True)
class Client:
    """As whom we ask one issuer; never used at another."""

    client_id: str
    auth_method: AuthMethod = "none"
    secret: SecretStr | None = None
    """The client secret, or for `private_key_jwt` the private key in PEM."""
    key_id: str = ""
    """Of that private key, if its server wants one named."""
    source: ClientSource = "manual"


@dataclass(frozen=True, slots=True)
class Discovered:
    """What a protected resource says of itself (RFC 9728), and its first usable issuer."""

    resource: str
    """For RFC 8707: its canonical URL."""
    scopes: tuple[str, ...]
    """Of the challenge, else `scopes_supported` of the resource."""
    issuer: Issuer


@dataclass(frozen=True, slots=True)
class CodeAnswer:
    """What came back from an authorization server, unchecked: the query of the redirect (RFC 6749,
    4.1.2, RFC 9207)."""

    state: str = field(repr=False)
    code: str = field(default="", repr=False)
    iss: str | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """A successful answer of a token endpoint (RFC 6749, section 5.1)."""

    access_token: SecretStr
    token_type: str = "Bearer"  # noqa: S105 - the name of the scheme
    expires_in_s: float | None = None
    refresh_token: SecretStr | None = None
    scope: str | None = None
    """None: as it was asked for."""
    id_token: SecretStr | None = None


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A row of `oauth_tokens`, decrypted. `server_id` None: of the user's login; `user_id` None: of
    the deployment itself."""

    id: UUID
    """Another one with every new grant, the same through all refreshes: the key of sessions and
    tool lists."""
    server_id: UUID | None
    user_id: UUID | None
    issuer: str
    client_id: str
    token_url: str
    resource: str
    scopes: str
    token_type: str
    access_token: SecretStr
    refresh_token: SecretStr | None
    generation: int
    """Grows with every refresh: what compare-and-set compares."""
    lifetime_s: float | None
    expires_at: datetime | None = field(compare=False)
    """By the clock of the process that has read the row."""
    needs_reauth: ReauthReason | None
    may_retry: bool = field(default=False, compare=False)
    """Marked for a reason that need not be final, and it is time to try again."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """What goes into an Authorization header, and which token that was."""

    token_id: UUID
    generation: int
    header: SecretStr
