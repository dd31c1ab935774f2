"""What administrators' requests share. Unknown fields are refused: a typo is no setting."""

from typing import Annotated, Any, ClassVar, cast
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    SecretStr,
    StringConstraints,
    model_validator,
)

from chatd.api.fields import refusal

MAX_URL = 2048
MAX_SECRET = 8192


class AdminBody(BaseModel):
    """Null is as good as absent, but for the `nullable` fields."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    nullable: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        items = cast(dict[str, Any], values).items()
        return {name: value for name, value in items if value is not None or name in cls.nullable}

    def given(self) -> dict[str, Any]:
        """The fields that were sent."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def check_secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().strip()
    if len(text) > MAX_SECRET:
        raise refusal(f"A secret has at most {MAX_SECRET} characters.")
    if not text.isascii() or not text.isprintable():
        raise refusal("A secret must be printable ASCII: it is sent in a header.")
    return SecretStr(text)


def check_url(value: str) -> str:
    try:
        usable = _usable(value, urlsplit(value))
    except ValueError:
        usable = False
    if not usable:
        raise refusal(
            "A URL must begin with http:// or https:// and hold no user, password or fragment."
        )
    return value


def _usable(value: str, url: SplitResult) -> bool:
    """Raises ValueError for a port that is none."""
    return (
        url.scheme in {"http", "https"}
        and bool(url.hostname)
        and "@" not in url.netloc
        and url.port != 0
        and not url.fragment
        and value.isascii()
        and value.isprintable()
        and not {" ", "\\", '"', "<", ">"} & set(value)
    )


def _url_or_nothing(value: str) -> str:
    return check_url(value).rstrip("/") if value else ""


_text = StringConstraints(strip_whitespace=True, max_length=MAX_URL)

Secret = Annotated[SecretStr, AfterValidator(check_secret)]
Url = Annotated[str, _text, AfterValidator(check_url)]
BaseUrl = Annotated[str, _text, AfterValidator(_url_or_nothing)]
