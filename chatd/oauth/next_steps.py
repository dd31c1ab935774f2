"""What an administrator can do where no authorization server was found."""

from collections.abc import Sequence

from chatd.core.oauth import Issuer
from chatd.oauth.attempts import MANUAL, Attempt, DiscoveryFailed, Problem

_GIVE = f"give {MANUAL}"
_STEPS: dict[Problem, str] = {
    "blocked": "It leads to an address this deployment may not call. If that network is yours, its "
    "operator can open it (CHATD_MCP_ALLOWED_CIDRS).",
    "resource": f"Use the URL that the metadata names as the server's URL, or {_GIVE}.",
    "issuer": "The authorization server's metadata is of another issuer{names}. Ask the server's "
    f"operator to correct it, or {_GIVE}.",
    "pkce": "The authorization server does not announce PKCE with S256, without which no login is "
    f"safe. Ask its operator to announce it, or if it is known to work {_GIVE}.",
    "endpoint": f"Ask the authorization server's operator to correct its endpoints, or {_GIVE}.",
    "unreachable": f"Check the URL and whether the server is up, then try again, or {_GIVE}.",
    "redirect": "It redirects to another host, which is not followed. If that is the right one, "
    f"use it in the server's URL, or {_GIVE}.",
    "open": "The server answered without asking for a login: auth_type none may do. If it does "
    f"need one, {_GIVE}.",
}
"""The most telling problem first."""


def failed(attempts: Sequence[Attempt], conventional: Issuer | None = None) -> DiscoveryFailed:
    problems = {attempt.problem for attempt in attempts}
    names = tuple(dict.fromkeys(each.issuer for each in attempts if each.issuer))
    if names and "unreachable" not in problems:
        problems.add("issuer")
    step = next(
        (text for problem, text in _STEPS.items() if problem in problems),
        "The server publishes no metadata of an authorization server. Register an application with "
        f"its operator and {_GIVE}.",
    )
    step = step.replace("{names}", _expecting(names))
    return DiscoveryFailed(attempts, step, conventional=conventional)


def _expecting(names: tuple[str, ...]) -> str:
    if not names:
        return ""
    first, *others = names
    others = f" ({', '.join(others)} is named too)" if others else ""
    return (
        f": {first}{others}. If its operator confirms that this is the right one, give"
        f' "oauth2_issuer": "{first}", and no other will be accepted'
    )
