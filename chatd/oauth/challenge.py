"""What a 401 or 403 asks for: WWW-Authenticate (RFC 9110, section 11.6.1; RFC 6750; RFC 9728)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105
_GAP = re.compile(r"[\s,]+")
_PARAMETER = re.compile(rf'({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(rf"({_TOKEN})(?=[\s,]|$)")
_JUNK = re.compile(r"[^\s,]+")
_ESCAPED = re.compile(r"\\(.)")
_ERROR = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}")

MAX_HEADER = 8192
MAX_SCOPES = 100


@dataclass(frozen=True, slots=True)
class Challenge:
    """Empty where the server says nothing, or something that is not of the form it should be."""

    resource_metadata: str = ""
    """A URL that whoever answers may have chosen: only the guarded client may open it."""
    scope: str = ""
    error: str = ""


def parse_challenge(www_authenticate: Sequence[str]) -> Challenge:
    """All header lines of one answer.

    Bearer is read in any case. `resource_metadata` also counts beside another scheme (RFC 9728,
    section 5.1: it is for any), after those of Bearer; scope and error only for Bearer.
    """
    found: list[tuple[str, dict[str, str]]] = []
    for line in www_authenticate:
        found.extend(_challenges(line[:MAX_HEADER]))
    bearer = [parameters for scheme, parameters in found if scheme == "bearer"]
    others = [parameters for scheme, parameters in found if scheme != "bearer"]
    error = _first(bearer, "error")
    return Challenge(
        resource_metadata=_first([*bearer, *others], "resource_metadata"),
        scope=" ".join(scopes_of(_first(bearer, "scope").split())),
        error=error if _ERROR.fullmatch(error) else "",
    )


def scopes_of(words: object) -> tuple[str, ...]:
    """Those that are scope tokens (RFC 6749, section 3.3), each once, at most MAX_SCOPES."""
    if not isinstance(words, list):
        return ()
    good = (word for word in words if isinstance(word, str) and _SCOPE.fullmatch(word))
    return tuple(dict.fromkeys(good))[:MAX_SCOPES]


def _challenges(line: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Scheme (lower case) and parameters; parameters before any scheme belong to ``."""
    scheme: str = ""
    parameters: dict[str, str] = {}
    at = 0
    while at < len(line):
        if gap := _GAP.match(line, at):
            at = gap.end()
        elif pair := _PARAMETER.match(line, at):
            name, quoted, bare = pair.groups()
            value = bare if quoted is None else _ESCAPED.sub(r"\1", quoted)
            parameters.setdefault(name.lower(), value)
            at = pair.end()
        elif named := _SCHEME.match(line, at):
            yield scheme, parameters
            scheme, parameters = named.group(1).lower(), {}
            at = named.end()
        elif junk := _JUNK.match(line, at):
            at = junk.end()
    yield scheme, parameters


def _first(challenges: Sequence[Mapping[str, str]], name: str) -> str:
    return next((found for each in challenges if (found := each.get(name, "").strip())), "")
