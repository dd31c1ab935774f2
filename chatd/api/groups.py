"""Groups of users: servers can be restricted to them."""

from uuid import UUID

from fastapi import APIRouter, Request, Response

from chatd import audit
from chatd.api.answers import CONFLICT, FORBIDDEN, NOT_FOUND, json_answer
from chatd.api.auth import Admin, by
from chatd.api.fields import Limit
from chatd.api.limits import JsonRoute
from chatd.api.parts import PartsDep
from chatd.api.people_bodies import (
    AfterId,
    Group,
    GroupBody,
    GroupId,
    GroupPatch,
    Groups,
    Members,
    UserId,
)
from chatd.audit import Target
from chatd.store import groups, policy_state

router = APIRouter(prefix="/groups", tags=["users"], route_class=JsonRoute)
ADMIN = {**FORBIDDEN, **NOT_FOUND}


@router.get("", response_model=Groups, responses=FORBIDDEN, summary="List groups")
async def list_groups(actor: Admin, parts: PartsDep) -> Response:
    return json_answer({"groups": await groups.list_groups(parts.db)})


@router.post(
    "",
    status_code=201,
    response_model=Group,
    responses={**FORBIDDEN, **CONFLICT},
    summary="Add a group",
)
async def create_group(
    request: Request, body: GroupBody, actor: Admin, parts: PartsDep
) -> Response:
    async with parts.db.transaction() as session:
        made = await groups.create_group(session, body.name, body.description)
        told = {"name": body.name, "description": body.description}
        audit.record(session, by(request, actor), "create", _target(made), after=told)
    return json_answer(await groups.show_group(parts.db, made), 201)


@router.get("/{group}", response_model=Group, responses=ADMIN, summary="One group")
async def get_group(group: GroupId, actor: Admin, parts: PartsDep) -> Response:
    return json_answer(await groups.show_group(parts.db, group))


@router.patch(
    "/{group}",
    response_model=Group,
    responses={**ADMIN, **CONFLICT},
    summary="Rename or describe a group",
)
async def patch_group(
    request: Request, group: GroupId, body: GroupPatch, actor: Admin, parts: PartsDep
) -> Response:
    async with parts.db.transaction() as session:
        before, after = await groups.update_group(session, group, body.given())
        if before != after:
            audit.record(
                session, by(request, actor), "update", _target(group), before=before, after=after
            )
    return json_answer(await groups.show_group(parts.db, group))


@router.delete("/{group}", status_code=204, responses=ADMIN, summary="Delete a group")
async def delete_group(request: Request, group: GroupId, actor: Admin, parts: PartsDep) -> Response:
    """Its members lose what they had through it, at once. A server that was restricted to this
    group alone is then nobody's."""
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        before = await groups.delete_group(session, group)
        audit.record(session, by(request, actor), "delete", _target(group), before=before)
    return Response(status_code=204)


@router.get(
    "/{group}/members", response_model=Members, responses=ADMIN, summary="Members of a group"
)
async def list_members(
    group: GroupId,
    actor: Admin,
    parts: PartsDep,
    limit: Limit = 50,
    after_id: AfterId = None,
) -> Response:
    """By username."""
    found, more = await groups.list_members(parts.db, group, limit=limit, after_id=after_id)
    return json_answer({"members": found, "has_more": more})


@router.put(
    "/{group}/members/{user}", status_code=204, responses=ADMIN, summary="Put a user in a group"
)
async def add_member(
    request: Request, group: GroupId, user: UserId, actor: Admin, parts: PartsDep
) -> Response:
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        if await groups.add_member(session, group, user):
            told = _member(user)
            audit.record(session, by(request, actor), "add_member", _target(group), after=told)
    return Response(status_code=204)


@router.delete(
    "/{group}/members/{user}",
    status_code=204,
    responses=ADMIN,
    summary="Take a user out of a group",
)
async def remove_member(
    request: Request, group: GroupId, user: UserId, actor: Admin, parts: PartsDep
) -> Response:
    """It counts for the next tool call of turns that are running."""
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        if await groups.remove_member(session, group, user):
            told = _member(user)
            audit.record(session, by(request, actor), "remove_member", _target(group), before=told)
    return Response(status_code=204)


def _target(group_id: UUID) -> Target:
    return Target("group", group_id)


def _member(user_id: UUID) -> dict[str, str]:
    return {"user_id": str(user_id)}
