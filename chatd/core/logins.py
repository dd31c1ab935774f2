"""Signing in with an OpenID provider: what is configured, and what its claims say of a user."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from chatd.core.oauth import Client
from chatd.core.text import bare, holds

MAX_SUBJECT = 255
"""OpenID Connect Core, section 2."""
MAX_NAME = 128
MAX_USERNAME = 64
MAX_EMAIL = 320
MAX_VALUES = 1000
FREE_NAMES = 9

_STRANGE = re.compile(r"[^a-z0-9._@+-]+")
_LEADING = re.compile(r"^[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """Which claims say what. One that is inside of others is named with dots."""

    username: str = "preferred_username"
    role: str = ""
    """Empty: roles are given here, and no login changes them."""
    admin_values: frozenset[str] = frozenset()
    groups: str = ""
    """Empty: groups are filled here."""
    group_names: Mapping[str, str] | None = None
    """A claim's value and the group it stands for; None: each stands for the group of its name."""

    def named(self) -> Iterable[str]:
        return filter(None, (self.username, "name", "email", self.role, self.groups))


@dataclass(frozen=True, slots=True)
class Login:
    """As whom and for how long users are signed in."""

    issuer: str
    client: Client
    scopes: str = "openid profile email"
    prompt: str = ""
    rules: ClaimRules = field(default_factory=ClaimRules)
    allow_signup: bool = True
    session_s: float = 86_400.0
    post_logout_redirect_uri: str = ""


@dataclass(frozen=True, slots=True)
class Memberships:
    """In which groups a login puts a user. Of `managed` they leave all others; None: of all."""

    names: frozenset[str]
    managed: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Profile:
    """What a provider says of one user."""

    subject: str
    usernames: Sequence[str]
    """For a new user: the first one that is free."""
    name: str
    email: str
    role: Literal["admin", "member"] | None
    memberships: Memberships | None

    def told(self) -> dict[str, Any]:
        """To be kept with the link: what its last login was decided by."""
        groups = sorted(self.memberships.names) if self.memberships is not None else None
        return {"name": self.name, "role": self.role, "groups": groups}


def lacks(claims: Mapping[str, Any], rules: ClaimRules) -> bool:
    """Whether one of the claims that count is not among these."""
    return any(_claim(claims, name) is None for name in rules.named())


def read_profile(claims: Mapping[str, Any], rules: ClaimRules) -> Profile:
    """Raises ValueError for a subject that nobody can be known by. A claim that is not there gives
    nothing: no administrator's role, no group."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT or not holds(subject):
        raise ValueError("its subject is no name")
    email = _text(_claim(claims, "email"))[:MAX_EMAIL]
    return Profile(
        subject=subject,
        usernames=_usernames(_text(_claim(claims, rules.username)) or email, subject),
        name=_text(_claim(claims, "name"))[:MAX_NAME].strip(),
        email=email,
        role=_role(claims, rules),
        memberships=_memberships(claims, rules),
    )


def _role(claims: Mapping[str, Any], rules: ClaimRules) -> Literal["admin", "member"] | None:
    if not rules.role:
        return None
    return "admin" if _values(_claim(claims, rules.role)) & rules.admin_values else "member"


def _memberships(claims: Mapping[str, Any], rules: ClaimRules) -> Memberships | None:
    if not rules.groups:
        return None
    values = _values(_claim(claims, rules.groups))
    if rules.group_names is None:
        return Memberships(values, None)
    names = frozenset(name for value, name in rules.group_names.items() if value in values)
    return Memberships(names, frozenset(rules.group_names.values()))


def _usernames(wanted: str, subject: str) -> Sequence[str]:
    """The wanted name as our rule allows it, then others like it; the last one is nobody else's."""
    plain = unicodedata.normalize("NFKD", wanted).encode("ascii", "ignore").decode().lower()
    room = MAX_USERNAME - 9
    first = _LEADING.sub("", _STRANGE.sub("-", plain))[:room].rstrip("-") or "user"
    own = hashlib.sha256(subject.encode()).hexdigest()[:8]
    return [first, *(f"{first}-{n}" for n in range(2, FREE_NAMES + 1)), f"{first}-{own}"]


def _claim(claims: Mapping[str, Any], name: str) -> object:
    """By its whole name, else inside of others: `realm_access.roles`."""
    if name in claims:
        return claims[name]
    found: object = claims
    for step in name.split("."):
        if not isinstance(found, Mapping):
            return None
        found = cast(Mapping[str, object], found).get(step)
    return found


def _text(value: object) -> str:
    return " ".join(bare(value).split()) if isinstance(value, str) else ""


def _values(value: object) -> frozenset[str]:
    """A text is one value, whatever is in it."""
    listed = cast(list[object], value) if isinstance(value, list) else [value]
    words = (str(each).lower() if isinstance(each, bool) else each for each in listed[:MAX_VALUES])
    return frozenset(word for word in words if isinstance(word, str) and word and holds(word))
