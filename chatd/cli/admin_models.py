"""`chatd admin create-model`: a provider and a model config in one go."""

import sys
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import typer
from pydantic import ValidationError
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd import audit
from chatd.api.model_bodies import ConfigBody, ProviderBody, ProviderPatch
from chatd.audit import By, Target
from chatd.cli.database import in_database
from chatd.core.errors import BadRequest
from chatd.core.models import DEFAULT_MAX_OUTPUT_TOKENS
from chatd.settings import StoreSettings, load
from chatd.store import models, policy_state
from chatd.store.db import Database
from chatd.store.keys import OtherKey, register_keys
from chatd.store.models import View
from chatd.store.secrets import KeyRing

_UNKNOWN_YET = UUID(int=0)


class Kind(StrEnum):
    openai = "openai"
    openai_compat = "openai-compat"


_KEY_HELP = "Better in the environment: others see arguments."

ModelId = Annotated[str, typer.Option("--model", help="The provider's own id of the model.")]
Provider = Annotated[Kind, typer.Option(help="Which protocol and address.")]
ProviderName = Annotated[str, typer.Option(help="Name of a new provider, or of one there is.")]
BaseUrl = Annotated[str, typer.Option(help="Where an openai-compat provider is.")]
ApiKey = Annotated[str | None, typer.Option(envvar="CHATD_MODEL_API_KEY", help=_KEY_HELP)]
FromStdin = Annotated[bool, typer.Option("--api-key-stdin", help="Read the key's line from stdin.")]
ContextLimit = Annotated[int, typer.Option(help="Tokens of the context window.")]
MaxOutput = Annotated[int, typer.Option(help="Tokens of one answer.")]
Default = Annotated[bool, typer.Option("--default", help="For chats that ask for none.")]


def create_model(
    model: ModelId,
    provider: Provider = Kind.openai,
    provider_name: ProviderName = "",
    base_url: BaseUrl = "",
    api_key: ApiKey = None,
    api_key_stdin: FromStdin = False,
    context_limit: ContextLimit = 128_000,
    max_output_tokens: MaxOutput = DEFAULT_MAX_OUTPUT_TOKENS,
    default: Default = False,
) -> None:
    """Add a model, with its provider unless there is one of that name. Prints the config's id."""
    settings = load(StoreSettings)
    owner = {
        "provider": provider.value,
        "display_name": provider_name or provider.value,
        "base_url": base_url,
        "api_key": _key(api_key, from_stdin=api_key_stdin),
    }
    config = {
        "provider_id": _UNKNOWN_YET,
        "model": model,
        "context_limit": context_limit,
        "is_default": default,
        "options": {"max_output_tokens": max_output_tokens},
    }
    try:
        bodies = ProviderBody.model_validate(owner), ConfigBody.model_validate(config)
    except ValidationError as error:
        raise _refusal(error) from None
    keys = KeyRing(settings.keys())

    async def work(db: Database) -> View:
        if others := await register_keys(db, keys.fingerprints):
            raise OtherKey(others)
        async with db.transaction() as session:
            return await _create(keys, *bodies, session)

    typer.echo(in_database(settings, work)["id"])


async def _create(
    keys: KeyRing, provider: ProviderBody, config: ConfigBody, session: AsyncSession
) -> View:
    await policy_state.bump(session)
    owner = await _provider(session, keys, provider)
    if owner["provider"] == Kind.openai and not owner["has_api_key"]:
        raise BadRequest(
            "An API key is needed.",
            detail="Set CHATD_MODEL_API_KEY, or send it with --api-key-stdin.",
        )
    made = await models.create_config(session, UUID(owner["id"]), config.to_settings())
    audit.record(session, By(), "create", Target("model_config", UUID(made["id"])), after=made)
    return made


async def _provider(session: AsyncSession, keys: KeyRing, wanted: ProviderBody) -> View:
    """The one of that name with what was given, or a new one."""
    known = {view["display_name"]: view for view in await models.list_providers(session)}
    before = known.get(wanted.display_name)
    secrets = ("api_key",) if wanted.api_key is not None else ()
    if before is None:
        after = await models.create_provider(session, keys, wanted.to_settings())
        action = "create"
    else:
        given = wanted.model_dump(include={"provider", "base_url"}, exclude_defaults=True)
        changes = ProviderPatch(**given, api_key=wanted.api_key).to_settings(before)
        after = await models.update_provider(session, keys, UUID(before["id"]), changes)
        action = "update"
    target = Target("model_provider", UUID(after["id"]))
    audit.record(session, By(), action, target, before=before, after=after, secrets=secrets)
    return after


def _key(given: str | None, *, from_stdin: bool) -> str | None:
    if from_stdin:
        return sys.stdin.readline().strip() or None
    if given is None and sys.stdin.isatty():
        given = typer.prompt(
            "API key (empty: none)", default="", hide_input=True, show_default=False, err=True
        )
    return given or None


def _refusal(error: ValidationError) -> BadRequest:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems]
    return BadRequest("\n".join(lines))
