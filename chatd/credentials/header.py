"""A token as it stands in an Authorization header."""

from pydantic import SecretStr

from chatd.core.oauth import Bearer, StoredToken
from chatd.credentials.failures import NoToken

NAME = "Authorization"


def bearer_of(token: StoredToken) -> Bearer:
    """Any spelling of bearer goes out as `Bearer`: some servers know no other.

    Raises NoToken for one that no header can hold: the error that it would make quotes it.
    """
    secret = token.access_token.get_secret_value()
    if not secret.isascii() or not secret.isprintable():
        raise NoToken("The token cannot be sent in a header.")
    kind = token.token_type
    if not kind or kind.lower() == "bearer":
        kind = "Bearer"
    return Bearer(token.id, token.generation, SecretStr(f"{kind} {secret}"))
