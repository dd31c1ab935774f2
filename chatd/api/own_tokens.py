"""API tokens: one's own, and for administrators anybody's. Shown once, then only named."""

from uuid import UUID

from fastapi import APIRouter, Request, Response

from chatd import audit
from chatd.api.answers import CONFLICT, FORBIDDEN, NOT_FOUND, json_answer
from chatd.api.auth import Admin, Signed, by
from chatd.api.limits import JsonRoute
from chatd.api.parts import Parts, PartsDep
from chatd.api.people_bodies import NewToken, TokenBody, TokenId, Tokens, UserId
from chatd.audit import Target
from chatd.core.chats import Actor
from chatd.store import tokens, users

router = APIRouter(prefix="/users", tags=["users"], route_class=JsonRoute)
ADMIN = {**FORBIDDEN, **NOT_FOUND}


@router.get("/me/tokens", response_model=Tokens, summary="Your tokens")
async def list_own_tokens(actor: Signed, parts: PartsDep) -> Response:
    return await _list(parts, actor.user_id)


@router.post(
    "/me/tokens",
    status_code=201,
    response_model=NewToken,
    responses=CONFLICT,
    summary="Create a token of yours",
)
async def create_own_token(
    request: Request, body: TokenBody, actor: Signed, parts: PartsDep
) -> Response:
    """The token is in this answer and never again. It may do what you may. At most 100 work."""
    return await _create(request, parts, actor, actor.user_id, body)


@router.delete(
    "/me/tokens/{token}", status_code=204, responses=NOT_FOUND, summary="Revoke a token of yours"
)
async def delete_own_token(
    request: Request, token: TokenId, actor: Signed, parts: PartsDep
) -> Response:
    """It stops working at once, and streams that it opened end."""
    return await _revoke(request, parts, actor, actor.user_id, token)


@router.get("/{user}/tokens", response_model=Tokens, responses=ADMIN, summary="Tokens of a user")
async def list_tokens(user: UserId, actor: Admin, parts: PartsDep) -> Response:
    await users.show_user(parts.db, user)
    return await _list(parts, user)


@router.post(
    "/{user}/tokens",
    status_code=201,
    response_model=NewToken,
    responses={**ADMIN, **CONFLICT},
    summary="Create a token for a user",
)
async def create_token(
    request: Request, user: UserId, body: TokenBody, actor: Admin, parts: PartsDep
) -> Response:
    """The token is in this answer and never again. A suspended user's works once they are not."""
    return await _create(request, parts, actor, user, body)


@router.delete(
    "/{user}/tokens/{token}", status_code=204, responses=ADMIN, summary="Revoke a user's token"
)
async def delete_token(
    request: Request, user: UserId, token: TokenId, actor: Admin, parts: PartsDep
) -> Response:
    return await _revoke(request, parts, actor, user, token)


async def _list(parts: Parts, user_id: UUID) -> Response:
    async with parts.db.transaction() as session:
        found = await tokens.list_tokens(session, user_id)
    return json_answer({"tokens": [token.view() for token in found]})


async def _create(
    request: Request, parts: Parts, actor: Actor, user_id: UUID, body: TokenBody
) -> Response:
    text = tokens.new_token()
    async with parts.db.transaction() as session:
        token = await tokens.add_token(
            session, user_id, text, name=body.name, days=body.expires_in_days
        )
        shown = token.view()
        told = {"user_id": str(user_id), "name": token.name, "expires_at": shown["expires_at"]}
        audit.record(session, by(request, actor), "create", _target(token.id), after=told)
    return json_answer(shown | {"token": text}, 201)


async def _revoke(
    request: Request, parts: Parts, actor: Actor, user_id: UUID, token_id: UUID
) -> Response:
    async with parts.db.transaction() as session:
        if await tokens.revoke_token(session, token_id, user_id):
            told = {"user_id": str(user_id)}
            audit.record(session, by(request, actor), "revoke", _target(token_id), before=told)
    await parts.people.revoked(user_id)
    return Response(status_code=204)


def _target(token_id: UUID) -> Target:
    return Target("api_token", token_id)
