"""Who may use a new MCP server until its administrator says it."""

from fastapi import APIRouter, Request, Response

from chatd.api import config
from chatd.api.admin import AdminBody
from chatd.api.answers import FORBIDDEN, json_answer
from chatd.api.auth import Admin
from chatd.api.limits import JsonRoute
from chatd.api.parts import PartsDep
from chatd.core.servers import Access
from chatd.store.config import read_config

router = APIRouter(prefix="/chats/config", tags=["config"], route_class=JsonRoute)


class NewServersBody(AdminBody):
    access: Access


@router.get(
    "/new-servers",
    response_model=NewServersBody,
    responses=FORBIDDEN,
    summary="Who may use new MCP servers",
)
async def get_new_servers(actor: Admin, parts: PartsDep) -> Response:
    return json_answer((await read_config(parts.db)).new_servers.model_dump())


@router.put(
    "/new-servers",
    response_model=NewServersBody,
    responses=FORBIDDEN,
    summary="Set who may use new MCP servers",
)
async def put_new_servers(
    request: Request, body: NewServersBody, actor: Admin, parts: PartsDep
) -> Response:
    """It counts for servers whose `access` is absent when they are added, not for those there."""
    await config.write(request, parts, actor, "new_servers", body.model_dump())
    return json_answer(body.model_dump())
