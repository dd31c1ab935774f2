"""Icons of MCP servers, from us: their owners do not learn who looks."""

from fastapi import APIRouter, Response

from chatd.api.answers import NOT_FOUND, Json
from chatd.api.auth import Signed
from chatd.api.icon_cache import MEDIA_TYPES, SVG
from chatd.api.parts import PartsDep
from chatd.api.servers import PATH, ServerId, seen_by
from chatd.core.errors import NotFound
from chatd.store import servers

router = APIRouter(prefix=PATH, tags=["mcp servers"])

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=3600",
}
_BYTES: Json = {"schema": {"type": "string", "format": "binary"}}
_CONTENT: Json = {"description": "The image.", "content": dict.fromkeys(MEDIA_TYPES, _BYTES)}
_AWAY: Json = {"description": "It cannot be fetched, or is no image of at most 256 KiB."}


@router.get(
    "/{server}/icon",
    response_class=Response,
    responses={200: _CONTENT, 502: _AWAY, **NOT_FOUND},
    summary="An MCP server's icon",
)
async def get_icon(server: ServerId, actor: Signed, parts: PartsDep) -> Response:
    """Never to be run: sandboxed, of the very type it says; an SVG only as an attachment."""
    async with parts.db.transaction() as session:
        view = await servers.get_server(session, server, visible_to=seen_by(actor))
    if not view["icon_url"]:
        raise NotFound
    icon = await parts.icons.get(view["icon_url"], view["url"])
    headers = _HEADERS | {"Content-Type": icon.media_type}
    if icon.media_type == SVG:
        headers["Content-Disposition"] = 'attachment; filename="icon.svg"'
    return Response(icon.data, headers=headers)
