"""What the `mcp` SDK's authorization server leaves to its users: to remember what it handed out."""

from secrets import token_urlsafe

from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    construct_redirect_uri,
)
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

SUBJECT = "somebody"
LIFETIME_S = 60
NEVER = 1e11


class SdkAuthority(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """Lets everybody in as the same user."""

    def __init__(self) -> None:
        self.clients: dict[str, OAuthClientInformationFull] = {}
        self.codes: dict[str, AuthorizationCode] = {}
        self.access: dict[str, AccessToken] = {}
        self.refresh: dict[str, RefreshToken] = {}

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self.clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        assert client_info.client_id is not None
        self.clients[client_info.client_id] = client_info

    async def authorize(
        self, client: OAuthClientInformationFull, params: AuthorizationParams
    ) -> str:
        new = {"code": token_urlsafe(), "client_id": client.client_id, "expires_at": NEVER}
        code = AuthorizationCode.model_validate(params.model_dump() | new)
        self.codes[code.code] = code
        return construct_redirect_uri(str(params.redirect_uri), code=code.code, state=params.state)

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        code = self.codes.pop(authorization_code.code)
        return self._grant(code.client_id, code.scopes, code.resource)

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        spent = self.refresh.pop(refresh_token.token)
        return self._grant(spent.client_id, scopes, spent.resource)

    async def load_access_token(self, token: str) -> AccessToken | None:
        return self.access.get(token)

    async def load_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: str
    ) -> RefreshToken | None:
        return self.refresh.get(refresh_token)

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        self.access.clear()
        self.refresh.clear()

    def _grant(self, client_id: str, scopes: list[str], resource: str | None) -> OAuthToken:
        of = {"client_id": client_id, "scopes": scopes, "resource": resource, "subject": SUBJECT}
        token = AccessToken.model_validate({"token": token_urlsafe(), **of})
        lasting = RefreshToken.model_validate({"token": token_urlsafe(), **of})
        self.access[token.token], self.refresh[lasting.token] = token, lasting
        handed = {"access_token": token.token, "refresh_token": lasting.token}
        return OAuthToken.model_validate({"expires_in": LIFETIME_S, **handed})
