"""Files: uploaded before the message that names them, read by their owner alone."""

from email.message import Message
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Request, Response
from starlette.datastructures import UploadFile

from chatd.api.answers import NOT_FOUND, File, Json, json_answer
from chatd.api.auth import Signed
from chatd.api.fields import says
from chatd.api.parts import PartsDep
from chatd.core.errors import BadRequest, TooLarge
from chatd.core.files import IMAGES, MAX_FILE_BYTES, MAX_NAME, PDF, TEXTS, FileInfo, new_upload
from chatd.core.times import rfc3339
from chatd.store import files

PATH = "/chats/files"
MAX_BODY_BYTES = MAX_FILE_BYTES + 64 * 1024
"""A file and what multipart puts around it."""

router = APIRouter(tags=["files"])

FileId = Annotated[UUID, Path(description="The file's id."), says("Invalid file ID.")]
_BYTES: Json = {"schema": {"type": "string", "format": "binary"}}
_BODY: Json = {
    "required": True,
    "description": "The bytes themselves, or a form with one file.",
    "content": {
        "application/octet-stream": _BYTES,
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": _BYTES["schema"]},
                "required": ["file"],
            }
        },
    },
}
_CONTENT: Json = {
    "description": "The bytes, as they were uploaded.",
    "content": dict.fromkeys(sorted(IMAGES | TEXTS | {PDF}), _BYTES),
}


@router.post(
    PATH,
    status_code=201,
    response_model=File,
    openapi_extra={"requestBody": _BODY},
    summary="Upload a file",
)
async def upload_file(
    request: Request,
    actor: Signed,
    parts: PartsDep,
    name: Annotated[
        str,
        Query(max_length=4 * MAX_NAME, description="Else from Content-Disposition or the form."),
    ] = "",
) -> Response:
    """At most 10 MiB of JSON, PDF, GIF, JPEG, PNG, WebP, CSV, Markdown or plain text (UTF-8).

    The bytes decide which; name and Content-Type only tell texts apart. A file goes after a while
    unless a message names it.
    """
    data, called, declared = await _sent(request)
    if len(data) > MAX_FILE_BYTES:
        raise TooLarge("The file is too large.", detail=f"At most {MAX_FILE_BYTES} bytes.")
    file = new_upload(data, name=name or called, declared=declared)
    return json_answer(_view(await files.add_file(parts.db, actor.user_id, file)), 201)


@router.get(
    PATH + "/{file}/info", response_model=File, responses=NOT_FOUND, summary="What a file is"
)
async def get_info(file: FileId, actor: Signed, parts: PartsDep) -> Response:
    return json_answer(_view(await files.file_info(parts.db, actor.user_id, file)))


@router.get(
    PATH + "/{file}",
    response_class=Response,
    responses={
        200: _CONTENT,
        304: {"description": "It is the one that you have."},
        **NOT_FOUND,
    },
    summary="Download a file",
)
async def get_file(
    file: FileId,
    actor: Signed,
    parts: PartsDep,
    inline: Annotated[bool, Query(description="For images: to be shown in a page.")] = False,
    if_none_match: Annotated[str | None, Header(max_length=4096)] = None,
) -> Response:
    """Never to be run: an attachment, sandboxed, of the very type it says."""
    info = await files.file_info(parts.db, actor.user_id, file)
    headers = _headers(info, inline=inline and info.media_type in IMAGES)
    if _matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    data = await files.file_data(parts.db, actor.user_id, file)
    return Response(data, headers=headers | {"Content-Type": info.media_type})


async def _sent(request: Request) -> tuple[bytes, str, str]:
    """The bytes, the name and the media type that they were sent with."""
    declared = request.headers.get("content-type", "")
    if not declared.lower().startswith("multipart/form-data"):
        return await request.body(), _file_name(request), declared
    try:
        async with request.form(max_files=1, max_fields=10) as form:
            sent = [value for value in form.values() if isinstance(value, UploadFile)]
            if not sent:
                raise BadRequest("The form holds no file.")
            return await sent[0].read(), sent[0].filename or "", sent[0].content_type or ""
    except UnicodeError:
        # Some codecs that a client may name decode nothing.
        raise BadRequest("The form's character set cannot be read.") from None


def _file_name(request: Request) -> str:
    """Out of `Content-Disposition` (RFC 6266), if there is one."""
    header = Message()
    header["Content-Disposition"] = request.headers.get("content-disposition", "attachment")
    try:
        return header.get_filename("")
    except ValueError:
        # Character sets that decode nothing, numbers of parts that are no numbers.
        return ""


def _headers(info: FileInfo, *, inline: bool) -> dict[str, str]:
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in info.name)
    names = f"filename=\"{plain}\"; filename*=UTF-8''{quote(info.name, safe='')}"
    return {
        "Content-Disposition": f"{'inline' if inline else 'attachment'}; {names}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, immutable",
        "ETag": f'"{info.sha256}"',
    }


def _matches(if_none_match: str | None, etag: str) -> bool:
    known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in known or "*" in known


def _view(info: FileInfo) -> Any:
    return {
        "id": str(info.id),
        "name": info.name,
        "media_type": info.media_type,
        "size": info.size,
        "created_at": rfc3339(info.created_at),
    }
