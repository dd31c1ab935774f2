"""Every failure has one kind; none shows a secret."""

import asyncio
from typing import Any, cast

import httpx2
import openai
import pytest

from chatd.core.errors import TurnFailed, turn_error
from chatd.llm.clients import ModelClients
from chatd.llm.errors import classify
from chatd.llm.failures import ErrorFrame, NoModelApi, StreamEnded, StreamMalformed, StreamSilent
from chatd.llm.signals import MAX_DETAIL, redact, retry_after
from chatd.outbound import Outbound
from tests.llm.provider import KEY, asked, event, failing, model, streaming, text
from tests.outbound.raw_server import Exchange, serving

REQUEST = httpx2.Request("POST", "https://api.test/v1/chat/completions?key=query-secret")


def said(message: str, code: str | int | None = None, kind: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def status_error(status: int, body: object = None, **headers: str) -> openai.APIStatusError:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx2.Response(status, headers=names, request=REQUEST)
    inner = cast(Any, body).get("error", body) if isinstance(body, dict) else body
    return openai.APIStatusError(f"Error code: {status}", response=response, body=inner)


CASES: list[tuple[BaseException, str, bool]] = [
    (asyncio.CancelledError(), "generic", False),
    (TimeoutError(), "timeout", False),
    (status_error(400, said("Item 'r' was given without its required 'm'")), "config", False),
    (StreamEnded(), "timeout", True),
    (StreamMalformed("x"), "timeout", True),
    (StreamSilent(600), "stream_silence_timeout", True),
    (httpx2.ReadTimeout("x"), "stream_silence_timeout", True),
    (status_error(400, said("Previous response with id 'r' not found.")), "generic", True),
    (status_error(529), "overloaded", True),
    (status_error(503, said("The engine is currently overloaded")), "overloaded", True),
    (ErrorFrame({"type": "overloaded_error", "message": "Overloaded"}), "overloaded", True),
    (status_error(402), "usage_limit", False),
    (status_error(429, said("Too much", "insufficient_quota")), "usage_limit", False),
    (status_error(403, said("Your billing is not set up")), "usage_limit", False),
    (status_error(400, said("filtered", "content_filter")), "content_filter", False),
    (status_error(401), "auth", False),
    (status_error(401, said("Incorrect API key provided", "invalid_api_key")), "auth", False),
    (status_error(400, said("API key not valid: authentication failed")), "auth", False),
    (status_error(403), "auth", False),
    (status_error(403, said("no access to model `m`", "model_not_found")), "config", False),
    (status_error(429), "rate_limit", True),
    (status_error(400, said("Rate limit reached for requests")), "rate_limit", True),
    (status_error(429, said("Request too large for m on tokens per min")), "config", False),
    (ErrorFrame({"message": "slow down", "code": 429}), "rate_limit", True),
    (status_error(403, said("x", "provider_disabled")), "auth", False),
    (ErrorFrame("this provider is disabled"), "provider_disabled", False),
    (status_error(408), "timeout", True),
    (status_error(502, "<html>Bad Gateway</html>"), "timeout", True),
    (status_error(503), "timeout", True),
    (status_error(504), "timeout", True),
    (httpx2.ConnectError("refused"), "timeout", True),
    (httpx2.ConnectTimeout("x"), "timeout", True),
    (httpx2.RemoteProtocolError("peer closed connection"), "timeout", True),
    (httpx2.ReadError("reset"), "timeout", True),
    (ConnectionResetError(), "timeout", True),
    (ErrorFrame({"message": "upstream: connection reset by peer"}), "timeout", True),
    (httpx2.ConnectError("CERTIFICATE_VERIFY_FAILED"), "config", False),
    (httpx2.UnsupportedProtocol("x"), "generic", False),
    (NoModelApi(), "config", False),
    (status_error(302), "config", False),
    (status_error(404), "config", False),
    (status_error(404, said("The model `m` does not exist", "model_not_found")), "config", False),
    (status_error(413), "config", False),
    (status_error(400, said("maximum context length is 8192")), "config", False),
    (status_error(400, said("too long", "context_length_exceeded")), "config", False),
    (status_error(400, said("max_tokens is too large: 32000")), "config", False),
    (status_error(400, said("bad", None, "invalid_request_error")), "config", False),
    (status_error(422, {"detail": [{"msg": "field required"}]}), "config", False),
    (status_error(500), "generic", True),
    (status_error(520), "generic", True),
    (ErrorFrame({"message": "Internal server error"}), "generic", True),
    (status_error(418), "generic", False),
    (ErrorFrame({"x": 1}), "generic", False),
    (RuntimeError("boom"), "generic", False),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind", "retryable"), CASES)
def test_the_table(error: BaseException, kind: str, retryable: bool) -> None:
    read = classify(error, provider="openai")
    assert (read["kind"], read["retryable"], read["provider"]) == (kind, retryable, "openai")
    assert read["message"]


def test_config_errors_say_what_to_change() -> None:
    for body, words in (
        (said("maximum context length", "context_length_exceeded"), "too long"),
        (said("max_completion_tokens too large"), "maximum of output tokens"),
        (said("The model `m` does not exist"), "does not know this model"),
    ):
        assert words in classify(status_error(400, body), provider="x")["message"]


def test_a_failed_turn_answers_for_itself() -> None:
    error = turn_error("missing_key", "No key.")
    assert classify(TurnFailed(error), provider="x") is error


@pytest.mark.parametrize(
    "body",
    [
        said("the provider says so"),
        {"error": "the provider says so"},
        {"message": "the provider says so"},
        {"detail": "the provider says so"},
        [{"error": {"message": "the provider says so", "code": 400}}],
        "the provider says so",
    ],
)
def test_the_detail_is_what_the_provider_says_in_any_shape(body: object) -> None:
    read = classify(status_error(400, body), provider="x")
    assert read["detail"] == "HTTP 400: the provider says so"
    assert read["status_code"] == 400


def test_a_page_of_html_is_no_detail() -> None:
    assert classify(status_error(502, "<html>…"), provider="x")["detail"] == "HTTP 502"


def test_a_detail_is_short_and_cut_after_redacting() -> None:
    words = "x" * (MAX_DETAIL - 20) + KEY * 3
    detail = classify(status_error(400, said(words)), provider="x", secrets=[KEY])["detail"]
    assert len(detail) <= MAX_DETAIL
    assert KEY[:8] not in detail


@pytest.mark.parametrize(
    "words",
    [
        "Incorrect API key provided: hunter2-secret. See https://x.test",
        "Incorrect API key provided: sk-hunter2****cret.",
        "Authorization: Bearer hunter2-secret was refused",
        "header b'Bearer hunter2-secret'",
        'api_key="hunter2-secret"',
        '{"access_token": "hunter2-secret"}',
        "GET https://x.test/v1?key=hunter2-secret&b=c failed",
        "https://user:hunter2-secret@x.test/",
        "key gsk_hunter2secret and AIzahunter2secret",
        "the configured value hunter2-secret",
    ],
)
def test_nothing_that_looks_like_a_secret_stays(words: str) -> None:
    assert "hunter2" not in redact(words, ["hunter2-secret"])
    if "configured" not in words:
        assert "hunter2" not in redact(words)


def test_ordinary_words_stay() -> None:
    words = "The model `m` does not exist (see https://x.test/docs), tokens per min: limit 5"
    assert redact(words, [KEY]) == words


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after_ms": "1500", "retry_after": "9"}, 1.5),
        ({"retry_after": "-1"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "Fri, 20 Nov 2026 10:00:30 GMT"}, None),
        (
            {
                "retry_after": "Fri, 20 Nov 2026 10:00:30 GMT",
                "date": "Fri, 20 Nov 2026 10:00:00 GMT",
            },
            30.0,
        ),
        (
            {
                "retry_after": "Fri, 20 Nov 2026 09:00:00 GMT",
                "date": "Fri, 20 Nov 2026 10:00:00 GMT",
            },
            0.0,
        ),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(status_error(429, **headers)) == seconds


def test_only_an_answer_has_a_retry_after() -> None:
    assert retry_after(StreamEnded()) is None


# Against real servers


async def failure(clients: ModelClients, url: str, **options: Any) -> tuple[str, str]:
    """The kind, and all that is said."""
    called = model(url)
    with pytest.raises(Exception) as failed:  # noqa: PT011  whatever it is, it is classified
        await asked(clients.client(called), called, **options)
    error = classify(failed.value, provider=called.provider, secrets=[KEY])
    return error["kind"], str(error)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, said(f"Incorrect API key provided: {KEY}."), "auth"),
        (404, said("model not found"), "config"),
        (429, said("slow down"), "rate_limit"),
        (500, said("oops"), "generic"),
        (503, b"", "timeout"),
        (307, b"", "config"),
    ],
)
async def test_statuses_of_a_server(
    clients: ModelClients, status: int, body: Any, kind: str
) -> None:
    async with serving(failing(status, body)) as server:
        found, words = await failure(clients, server.url)
    assert found == kind
    assert KEY not in words
    assert len(server.exchanges) == 1


async def test_a_connection_dropped_in_the_middle(clients: ModelClients) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.chunk(event(text("half")))
        exchange.writer.close()

    async with serving(answer) as server:
        assert (await failure(clients, server.url))[0] == "timeout"


@pytest.mark.parametrize("begun", [False, True])
async def test_a_server_that_hangs(clients: ModelClients, begun: bool) -> None:
    async def answer(exchange: Exchange) -> None:
        if begun:
            await exchange.begin()
            await exchange.chunk(event(text("half")))
        await exchange.until_closed()

    async with serving(answer) as server:
        found, _ = await failure(clients, server.url, silence_s=0.2)
    assert found == "stream_silence_timeout"


async def test_an_error_inside_the_stream(clients: ModelClients) -> None:
    frame = said(f"the key {KEY} is over its rate limit")
    async with serving(streaming(event(text("half")), event(frame))) as server:
        found, words = await failure(clients, server.url)
    assert found == "rate_limit"
    assert KEY not in words


async def test_a_refusal_whose_body_never_comes_is_still_one(clients: ModelClients) -> None:
    async def limited(exchange: Exchange) -> None:
        head = b"HTTP/1.1 429 X\r\nretry-after: 7\r\ncontent-length: 999\r\n\r\n"
        await exchange.send(head, b'{"error":')

    async with serving(limited) as server:
        with pytest.raises(openai.APIStatusError) as failed:
            await asked(clients.client(model(server.url)), model(server.url), silence_s=0.2)
    assert classify(failed.value, provider="x")["kind"] == "rate_limit"
    assert retry_after(failed.value) == 7


async def test_nobody_there(clients: ModelClients) -> None:
    assert (await failure(clients, "http://127.0.0.1:9/v1?secret=query"))[0] == "timeout"


async def test_an_address_that_is_not_allowed_is_never_tried_again() -> None:
    outbound = Outbound()
    clients = ModelClients(outbound.model_client())
    found, words = await failure(clients, "http://127.0.0.1:9/v1?secret=query")
    assert found == "config"
    assert "127.0.0.1" in words
    assert "query" not in words
    await outbound.aclose()
