"""Model calls that are tried again: what, when and how often."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, cast

from tenacity import (
    AsyncRetrying,
    DoSleep,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
)

from chatd.core.deltas import Delta, Finished, Retrying
from chatd.core.errors import LeaseLost, TurnError, TurnFailed
from chatd.core.models import Model, ReasoningEffort
from chatd.core.tools import OfferedTool
from chatd.llm.clients import ModelClient
from chatd.llm.errors import classify
from chatd.llm.request import ToolChoice
from chatd.llm.signals import retry_after
from chatd.llm.stream import SILENCE_SECONDS, complete

MAX_ATTEMPTS = 25
MAX_DELAY_SECONDS = 60.0
MAX_RETRY_AFTER_SECONDS = 600.0
"""A Retry-After is the least we wait, but nobody can park a turn for longer than this."""

_backoff = wait_exponential(multiplier=1, exp_base=2, max=MAX_DELAY_SECONDS)


class _Failed(Exception):
    """One failed attempt, classified."""

    def __init__(self, error: TurnError, wait_s: float) -> None:
        super().__init__(error["message"])
        self.error = error
        self.wait_s = wait_s


async def complete_with_retries(
    client: ModelClient,
    model: Model,
    messages: Sequence[dict[str, Any]],
    tools: Sequence[OfferedTool],
    *,
    effort: ReasoningEffort | None = None,
    tool_choice: ToolChoice | None = None,
    silence_s: float = SILENCE_SECONDS,
    still_mine: Callable[[], Awaitable[bool]] | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    max_attempts: int = MAX_ATTEMPTS,
) -> AsyncGenerator[list[Delta]]:
    """As `complete`; before each wait a list of one Retrying, which withdraws the attempt's parts.

    `still_mine` is asked before each further attempt; False ends with LeaseLost. Raises TurnFailed
    after the last failure, or at once when trying again cannot help.
    """
    options = {"effort": effort, "tool_choice": tool_choice, "silence_s": silence_s}
    call = partial(complete, client, model, messages, tools, **options)
    state = None
    while True:
        attempt, finished = call(), False
        try:
            async for deltas in attempt:
                finished = isinstance(deltas[-1], Finished)
                yield deltas
            return
        except Exception as error:
            if finished:
                return
            failed = _failed(error, model)
        finally:
            await attempt.aclose()
        delay = await _delay(state := state or _first_failure(max_attempts), failed)
        yield [Retrying(state.attempt_number, round(delay * 1000), failed.error)]
        await sleep(delay)
        if still_mine is not None and not await still_mine():
            raise LeaseLost
        state.prepare_for_next_attempt()


def _first_failure(max_attempts: int) -> RetryCallState:
    """Made at the first failure only: a call that succeeds pays nothing for it."""
    retrying = AsyncRetrying(
        stop=stop_after_attempt(max_attempts),
        wait=_wait,
        retry=retry_if_exception(_retryable),
        reraise=True,
    )
    retrying.begin()
    return RetryCallState(retrying, fn=None, args=(), kwargs={})


async def _delay(state: RetryCallState, failed: _Failed) -> float:
    """Seconds until the next attempt. Raises TurnFailed when there is none."""
    state.set_exception((_Failed, failed, None))
    try:
        decision = await cast(AsyncRetrying, state.retry_object).iter(state)
    except _Failed:
        raise TurnFailed(failed.error) from None
    assert isinstance(decision, DoSleep)
    return float(decision)


def _retryable(error: BaseException) -> bool:
    return isinstance(error, _Failed) and error.error["retryable"]


def _wait(state: RetryCallState) -> float:
    """min(1 s x 2^n, 60 s), n from 0, and never less than the provider asked for."""
    failed = state.outcome.exception() if state.outcome else None
    asked = failed.wait_s if isinstance(failed, _Failed) else 0.0
    return max(_backoff(state), asked)


def _failed(error: Exception, model: Model) -> _Failed:
    secrets = [model.api_key.get_secret_value()] if model.api_key else []
    asked = retry_after(error) or 0.0
    return _Failed(
        classify(error, provider=model.provider, secrets=secrets),
        min(asked, MAX_RETRY_AFTER_SECONDS),
    )
