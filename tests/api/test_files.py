"""Uploading, attaching and downloading files."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast
from urllib.parse import unquote
from uuid import uuid4

import httpx2
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from chatd.core.files import MAX_CHAT_FILES, MAX_FILE_BYTES
from chatd.queue import WAKE_LIST
from chatd.store.db import Database
from tests.api.conftest import BASE, Person, enter, text
from tests.waiting import until

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
FILES = f"{BASE}/chats/files"


async def upload(
    person: Person, data: bytes, *, name: str | None = None, **headers: str
) -> httpx2.Response:
    params = {"name": name} if name is not None else {}
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    return await person.http.post(FILES, content=data, params=params, headers=sent)


async def uploaded(person: Person, data: bytes = PNG, name: str = "a.png") -> Any:
    answer = await upload(person, data, name=name)
    assert answer.status_code == 201, answer.text
    return answer.json()


def attached(*files: Any, words: str = "look") -> dict[str, Any]:
    parts = [{"type": "file", "file_id": file["id"]} for file in files]
    return {"content": [*text(words), *parts]}


def problem(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["message"]


# --- uploading


async def test_nobody_uploads_without_a_token(anonymous: httpx2.AsyncClient, db: Database) -> None:
    assert (await anonymous.post(FILES, content=PNG)).status_code == 401
    assert await db.fetch("SELECT 1 FROM files") == []


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"", (400, "The file is empty.")),
        (b"<svg/>", (400, "Unsupported file type.")),
        (b"<!doctype html>", (400, "Unsupported file type.")),
        (b"PK\x03\x04\x00", (400, "Unsupported file type.")),
        (b"x" * (MAX_FILE_BYTES + 1), (413, "The file is too large.")),
        (b"x" * (MAX_FILE_BYTES + 100_000), (413, "The request body is too large.")),
    ],
)
async def test_what_is_refused_leaves_nothing(
    member: Person, db: Database, data: bytes, answer: Any
) -> None:
    assert problem(await upload(member, data)) == answer
    assert await db.fetch("SELECT 1 FROM files") == []


async def test_a_body_without_an_announced_length_has_an_end_too(member: Person) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield b"x" * 1_000_000

    answer = await member.http.post(FILES, content=endless())
    assert answer.status_code == 413
    form = {"content-type": "multipart/form-data; boundary=b"}
    answer = await member.http.post(FILES, content=endless(), headers=form)
    assert answer.status_code in (400, 413)


async def test_only_this_path_takes_large_bodies(member: Person, model: str) -> None:
    large = {"content": text("x" * 300_000)}
    for path in ("/chats", "/chats/files/x", "/chats/files/"):
        assert (await member.post(path, large)).status_code == 413


async def test_the_largest_file_comes_back_as_it_was(member: Person) -> None:
    data = b"0123456789abcdef" * (MAX_FILE_BYTES // 16)
    file = await uploaded(member, data, "all.txt")
    assert file["size"] == MAX_FILE_BYTES
    assert (await member.get(f"/chats/files/{file['id']}")).content == data


async def test_an_upload_says_what_it_is(member: Person) -> None:
    file = await uploaded(member)
    assert {key: file[key] for key in ("name", "media_type", "size")} == {
        "name": "a.png",
        "media_type": "image/png",
        "size": len(PNG),
    }
    assert (await member.get(f"/chats/files/{file['id']}/info")).json() == file


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="a b.txt"', "a b.txt"),
        ("attachment; filename*=UTF-8''%E6%97%A5%0D%0A%00.txt", "日\ufffd.txt"),
        ("attachment; filename*=nonsense''%ff%fe.txt", None),
        ("attachment; filename*=undefined''x.txt", "file.txt"),
        ("attachment; filename*=idna''%ff.txt", None),
        ("attachment; filename*" + "9" * 5000 + "*=utf-8''x", "file.txt"),
        ("attachment; filename=", "file.txt"),
        ("nonsense", "file.txt"),
    ],
)
async def test_the_name_may_come_in_a_header(
    member: Person, disposition: str, name: str | None
) -> None:
    answer = await upload(member, b"hi", content_disposition=disposition)
    assert answer.status_code == 201
    assert name in (None, answer.json()["name"])


async def test_a_form_is_taken_too(member: Person) -> None:
    sent = {"file": ("../t.csv", b"a,b\n", "application/octet-stream")}
    answer = await member.http.post(FILES, files=sent)
    assert (answer.status_code, answer.json()["name"]) == (201, "t.csv")
    assert answer.json()["media_type"] == "text/csv"


@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b--\r\n'],
)
async def test_a_form_without_a_file_is_refused(member: Person, body: bytes) -> None:
    form = {"content_type": "multipart/form-data; boundary=b"}
    assert (await upload(member, body, **form)).status_code == 400
    assert (await upload(member, body, content_type="multipart/form-data")).status_code == 400


async def test_a_form_in_a_character_set_that_decodes_nothing_is_refused(member: Person) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\nx\r\n--b--\r\n'
    form = {"content_type": "multipart/form-data; boundary=b; charset=undefined"}
    assert (await upload(member, part, **form)).status_code == 400


# --- downloading


async def test_a_file_is_its_owners_alone(member: Person, admin: Person) -> None:
    file = await uploaded(member)
    for path in (f"/chats/files/{file['id']}", f"/chats/files/{file['id']}/info"):
        assert (await admin.get(path)).status_code == 404
        assert (await member.get(path)).status_code == 200
    assert (await member.get(f"/chats/files/{uuid4()}")).status_code == 404
    assert problem(await member.get("/chats/files/x")) == (400, "Invalid file ID.")


async def test_a_download_cannot_run_in_the_page(member: Person) -> None:
    file = await uploaded(member, b"hello", "a.txt")
    answer = await member.get(f"/chats/files/{file['id']}", params={"inline": "true"})
    assert answer.content == b"hello"
    assert answer.headers["content-type"] == "text/plain"
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["cache-control"] == "private, immutable"


async def test_a_picture_may_be_shown(member: Person) -> None:
    path = f"/chats/files/{(await uploaded(member))['id']}"
    kept = await member.get(path)
    shown = await member.get(path, params={"inline": "true"})
    assert kept.headers["content-disposition"].startswith("attachment;")
    assert shown.headers["content-disposition"].startswith("inline;")
    assert shown.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ['a"; x="y.txt', "größe 日本 100%.txt", "a;b\\c'd.txt"])
async def test_a_name_stays_within_its_header(member: Person, name: str) -> None:
    file = await uploaded(member, b"hello", name)
    header = (await member.get(f"/chats/files/{file['id']}")).headers["content-disposition"]
    assert header.isascii()
    assert header.count('"') == 2
    assert unquote(header.partition("filename*=UTF-8''")[2]) == file["name"]


async def test_who_has_it_is_not_sent_it_again(member: Person) -> None:
    path = f"/chats/files/{(await uploaded(member))['id']}"
    etag = (await member.get(path)).headers["etag"]
    for known in (etag, f'"x", W/{etag}', "*"):
        again = await member.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (await member.get(path, headers={"If-None-Match": '"x"'})).content == PNG


# --- in messages


async def test_files_of_others_cannot_be_attached(
    member: Person, admin: Person, model: str, db: Database
) -> None:
    own, foreign = await uploaded(member), await uploaded(admin)
    nothing = {"id": str(uuid4())}
    refused = await member.post("/chats", attached(own, foreign, nothing))
    assert problem(refused) == (400, "One or more file IDs are invalid.")
    assert refused.json()["detail"] == f"Invalid IDs: {foreign['id']}, {nothing['id']}"
    assert await db.fetch("SELECT 1 FROM chats") == []
    assert await db.fetch("SELECT 1 FROM chat_files") == []


async def test_what_a_tool_answered_cannot_be_attached(
    member: Person, model: str, db: Database
) -> None:
    file = await uploaded(member)
    await db.fetch("UPDATE files SET kind = 'result'")
    assert (await member.post("/chats", attached(file))).status_code == 400


async def test_an_attached_file_is_in_the_message_and_in_the_chat(
    member: Person, model: str
) -> None:
    file = await uploaded(member)
    chat = (await member.post("/chats", attached(file))).json()
    assert chat["files"] == [file]
    assert chat["warnings"] == []
    assert (await member.get(f"/chats/{chat['id']}")).json()["files"] == [file]
    assert (await member.get("/chats")).json()[0]["files"] == [file]
    (message,) = (await member.get(f"/chats/{chat['id']}/messages")).json()["messages"]
    assert message["content"][1] == {
        "type": "file",
        "file_id": file["id"],
        "media_type": "image/png",
        "name": "a.png",
        "size": len(PNG),
    }


async def test_later_messages_and_edits_bring_files_too(member: Person, model: str) -> None:
    files = [await uploaded(member, PNG + bytes([n]), f"{n}.png") for n in range(3)]
    chat = (await member.post("/chats", attached(files[0]))).json()
    path = f"/chats/{chat['id']}/messages"
    queued = (await member.post(path, attached(files[1]))).json()
    assert (queued["queued"], queued["warnings"]) == (True, [])
    listed = (await member.get(path)).json()
    assert listed["queued_messages"][0]["content"][1]["name"] == "1.png"
    first = listed["messages"][0]["id"]
    edited = await member.patch(f"{path}/{first}", attached(files[2], files[2]))
    assert edited.json()["message"]["content"][2]["name"] == "2.png"
    names = [f["name"] for f in (await member.get(f"/chats/{chat['id']}")).json()["files"]]
    assert names == ["0.png", "1.png", "2.png"]


async def test_a_repeated_request_brings_nothing_twice(member: Person, model: str) -> None:
    body, key = attached(await uploaded(member)), {"Idempotency-Key": "k"}
    first = (await member.post("/chats", body, headers=key)).json()
    again = (await member.post("/chats", body, headers=key)).json()
    assert (again["id"], again["files"]) == (first["id"], first["files"])


async def test_files_are_kept_also_when_the_answer_is_a_stream(member: Person, model: str) -> None:
    file = await uploaded(member)
    chat = (await member.post("/chats", attached())).json()
    sent: dict[str, Any] = {"json": attached(file), "headers": {"Accept": "text/event-stream"}}
    path = f"{BASE}/chats/{chat['id']}/messages"
    stream = asyncio.create_task(member.http.post(path, **sent))

    async def linked() -> bool:
        return (await member.get(f"/chats/{chat['id']}")).json()["files"] == [file]

    await until(linked)
    stream.cancel()
    await asyncio.gather(stream, return_exceptions=True)


async def test_linking_files_wakes_a_worker_again(redis: Redis, member: Person, model: str) -> None:
    """While the chat was locked for its files, a claim may have passed over its turn."""
    await member.post("/chats", attached(await uploaded(member)))

    async def wakes() -> bool:
        return await cast(Any, redis).llen(WAKE_LIST) == 2

    await until(wakes)


async def test_a_chat_keeps_so_many_files_and_says_when_it_is_full(
    member: Person, model: str, db: Database
) -> None:
    file = await uploaded(member)
    await db.fetch(
        """INSERT INTO files (id, owner_id, kind, name, media_type, size, sha256, data)
        SELECT gen_random_uuid(), owner_id, kind, n::text, media_type, size, sha256, data
        FROM files, generate_series(1, $1) n""",
        MAX_CHAT_FILES,
    )
    rows = await db.fetch("SELECT id::text FROM files WHERE name <> 'a.png' ORDER BY id")
    many = [{"id": row["id"]} for row in rows]
    chat = (await member.post("/chats", attached(*many[:-1]))).json()
    assert (len(chat["files"]), chat["warnings"]) == (MAX_CHAT_FILES - 1, [])
    path = f"/chats/{chat['id']}/messages"
    sent = (await member.post(path, attached(file, many[-1], many[0]))).json()
    (warning,) = sent["warnings"]
    assert warning.startswith("A chat keeps at most 50 files: 1 of this message")
    again = (await member.post(path, attached(file))).json()
    assert again["warnings"] == []
    assert len((await member.get(f"/chats/{chat['id']}")).json()["files"]) == MAX_CHAT_FILES


async def test_a_token_of_somebody_new_sees_no_files(
    app: FastAPI, db: Database, member: Person
) -> None:
    await uploaded(member)
    other = await enter(app, db, "eve", "member")
    assert (await other.get("/chats")).json() == []
    await other.http.aclose()
