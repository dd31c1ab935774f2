"""Users: oneself, and for administrators everybody."""

from typing import Annotated, Any, cast
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from chatd import audit
from chatd.api.answers import CONFLICT, FORBIDDEN, NOT_FOUND, json_answer
from chatd.api.auth import Admin, Signed, by
from chatd.api.exporting import BUSY, LINES, Export
from chatd.api.fields import Limit
from chatd.api.limits import JsonRoute
from chatd.api.parts import Parts, PartsDep
from chatd.api.people_bodies import (
    AfterId,
    Me,
    OwnPatch,
    UserBody,
    UserDetails,
    UserId,
    UserPatch,
    Users,
)
from chatd.api.session_cookie import SLOT, Slot
from chatd.audit import Target
from chatd.core.chats import Actor
from chatd.core.errors import Conflict
from chatd.store import policy_state, users
from chatd.store.exporting import export_user
from chatd.store.users import Changes

router = APIRouter(prefix="/users", tags=["users"], route_class=JsonRoute)
ADMIN = {**FORBIDDEN, **NOT_FOUND, **CONFLICT}
EXPORT: dict[int | str, dict[str, Any]] = {
    **BUSY,
    200: {
        "description": "JSON lines, each with its `type`; the last one is `end`.",
        "content": {LINES: {"schema": {"type": "string"}, "example": '{"type": "end"}\n'}},
    },
}
_OWN = Me.model_fields.keys()


@router.get("/me", response_model=Me, summary="Who you are")
async def get_me(request: Request, actor: Signed, parts: PartsDep) -> Response:
    return await _me(request, parts, actor)


@router.patch("/me", response_model=Me, summary="Change your name")
async def patch_me(request: Request, body: OwnPatch, actor: Signed, parts: PartsDep) -> Response:
    await _update(request, parts, actor, actor.user_id, cast(Changes, body.given()))
    return await _me(request, parts, actor)


@router.get("/me/export", response_class=Response, responses=EXPORT, summary="All that is yours")
async def export_me(request: Request, actor: Signed, parts: PartsDep) -> Response:
    """User, groups, settings, tokens (without secrets), chats with their turns, messages and tool
    calls, files (in base64), usage."""
    return await _export(request, parts, actor, actor.user_id)


@router.get("", response_model=Users, responses=FORBIDDEN, summary="List users")
async def list_users(
    actor: Admin,
    parts: PartsDep,
    q: Annotated[str, Query(max_length=128, description="Part of username or name.")] = "",
    limit: Limit = 50,
    after_id: AfterId = None,
) -> Response:
    """By username."""
    found, more = await users.search_users(parts.db, q, limit=limit, after_id=after_id)
    return json_answer({"users": found, "has_more": more})


@router.post(
    "",
    status_code=201,
    response_model=UserDetails,
    responses={**FORBIDDEN, **CONFLICT},
    summary="Add a user",
)
async def create_user(request: Request, body: UserBody, actor: Admin, parts: PartsDep) -> Response:
    """They cannot do anything before they have a token."""
    async with parts.db.transaction() as session:
        made = await users.create_user(session, body.username, role=body.role, name=body.name)
        audit.record(session, by(request, actor), "create", _target(made.id), after=made.told())
    return json_answer(await users.show_user(parts.db, made.id), 201)


@router.get("/{user}", response_model=UserDetails, responses=ADMIN, summary="One user")
async def get_user(user: UserId, actor: Admin, parts: PartsDep) -> Response:
    return json_answer(await users.show_user(parts.db, user))


@router.patch("/{user}", response_model=UserDetails, responses=ADMIN, summary="Change a user")
async def patch_user(
    request: Request, user: UserId, body: UserPatch, actor: Admin, parts: PartsDep
) -> Response:
    """Who is suspended can do nothing from then on: tokens are refused, streams close, turns stop
    (what they have said so far is kept), queues are dropped, accounts connected to MCP servers are
    revoked there. Their tokens work again once they are not suspended any more; accounts have to be
    connected again. 409 for the last administrator."""
    await _update(request, parts, actor, user, cast(Changes, body.given()))
    if body.suspended is not None:
        await (parts.people.stop(user) if body.suspended else parts.people.resume(user))
    if body.suspended:
        await parts.oauth.disconnecting.shut_out(user, by(request, actor))
    return json_answer(await users.show_user(parts.db, user))


@router.delete("/{user}", status_code=204, responses=ADMIN, summary="Erase a user")
async def erase_user(request: Request, user: UserId, actor: Admin, parts: PartsDep) -> Response:
    """Their work ends as when they are suspended; then all that they said, made or set is removed.
    What stays are lines of ids and numbers: usage, and that something was called or done.

    It may take a while. One that failed half-way left a suspended user: send it again.
    """
    if user == actor.user_id:
        raise Conflict("You cannot erase yourself.", detail="Another administrator can.")
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        await users.suspend_for_erasure(session, user)
        audit.record(session, by(request, actor), "erase", _target(user))
    await parts.oauth.disconnecting.shut_out(user, by(request, actor))
    await parts.people.erase(user)
    return Response(status_code=204)


@router.get(
    "/{user}/export",
    response_class=Response,
    responses={**EXPORT, **ADMIN},
    summary="All that is a user's",
)
async def export(request: Request, user: UserId, actor: Admin, parts: PartsDep) -> Response:
    """As `GET /users/me/export`. It shows what the user has said: it is audited."""
    return await _export(request, parts, actor, user)


async def _me(request: Request, parts: Parts, actor: Actor) -> Response:
    shown = await users.show_user(parts.db, actor.user_id)
    slot: Slot = request.scope[SLOT]
    shown["csrf_token"] = slot.csrf
    answer = json_answer({name: shown[name] for name in _OWN})
    if slot.csrf:
        answer.headers["Cache-Control"] = "no-store"
    return answer


async def _update(
    request: Request, parts: Parts, actor: Actor, user_id: UUID, changes: Changes
) -> None:
    async with parts.db.transaction() as session:
        if "suspended" in changes:
            await policy_state.bump(session)
        before, after = await users.update_user(session, user_id, changes)
        if before != after:
            audit.record(
                session,
                by(request, actor),
                "update",
                _target(user_id),
                before=before.told(),
                after=after.told(),
            )


async def _export(request: Request, parts: Parts, actor: Actor, user_id: UUID) -> Response:
    with parts.permits.export(actor) as permit:
        async with parts.db.transaction() as session:
            await users.lock_user(session, user_id)
            audit.record(session, by(request, actor), "export", _target(user_id))
    lines = export_user(parts.db, user_id)
    return Export(permit, lines, f"user-{user_id}.jsonl", parts.streams.pace.send_timeout_s)


def _target(user_id: UUID) -> Target:
    return Target("user", user_id)
