"""Errors in OpenAI's shape."""

from dataclasses import dataclass

import orjson


@dataclass(eq=False)
class Refusal(Exception):
    """The request is answered with this error."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    retry_after: int | None = None

    @property
    def kind(self) -> str:
        if self.status >= 500:
            return "server_error"
        return "requests" if self.status == 429 else "invalid_request_error"

    def body(self) -> bytes:
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return orjson.dumps({"error": error})
