"""What a user has said, made and set, as JSON lines, read page by page.

Not in it: secrets, the log of connections to servers, audit lines, and what is deleted.

Each line is an object with its `type`; chats are followed by what is in them. Of what changes
meanwhile some is told as it was and some as it is. The last line's type is `end`: without it the
export was cut off.
"""

import base64
from collections.abc import AsyncGenerator
from uuid import UUID

from chatd.store.db import Database

PAGE = 50
"""Rows at once: a message or a call's result may be megabytes."""

_USER = """
SELECT json_build_object('type', 'user', 'id', id, 'username', username, 'name', name,
    'role', role, 'suspended', suspended, 'spend_limit_micros', spend_limit_micros,
    'created_at', created_at)::text AS line FROM users WHERE id = $1
"""

_GROUPS = """
SELECT json_build_object('type', 'group', 'id', g.id, 'name', g.name)::text AS line
FROM group_members m JOIN groups g ON g.id = m.group_id WHERE m.user_id = $1 ORDER BY g.name
"""

_SETTINGS = """
SELECT json_build_object('type', 'setting', 'key', key, 'value', value,
    'updated_at', updated_at)::text AS line FROM user_settings WHERE user_id = $1 ORDER BY key
"""

_TOKENS = """
SELECT json_build_object('type', 'token', 'id', id, 'name', name, 'created_at', created_at,
    'expires_at', expires_at, 'revoked_at', revoked_at, 'last_used_at', last_used_at)::text AS line
FROM api_tokens WHERE user_id = $1 ORDER BY created_at, id
"""

_LINKS = """
SELECT json_build_object('type', 'login', 'id', id, 'issuer', issuer, 'subject', subject,
    'email', email, 'claims', claims, 'created_at', created_at,
    'last_login_at', last_login_at)::text AS line
FROM user_links WHERE user_id = $1 ORDER BY created_at, id
"""

_CONNECTIONS = """
SELECT json_build_object('type', 'connection', 'id', t.id, 'server_id', t.server_id,
    'server', s.slug, 'issuer', t.issuer, 'scopes', t.scopes, 'needs_reauth', t.needs_reauth,
    'expires_at', t.expires_at, 'created_at', t.created_at, 'refreshed_at', t.refreshed_at,
    'used_at', t.used_at)::text AS line
FROM oauth_tokens t LEFT JOIN mcp_server_configs s ON s.id = t.server_id
WHERE t.user_id = $1 ORDER BY t.created_at, t.id
"""

_SESSIONS = """
SELECT json_build_object('type', 'session', 'id', id, 'created_at', created_at,
    'last_used_at', last_used_at, 'expires_at', expires_at, 'revoked_at', revoked_at)::text AS line
FROM sessions WHERE user_id = $1 ORDER BY created_at, id
"""

_CHATS = f"""
SELECT id AS at, json_build_object('type', 'chat', 'id', id, 'parent_chat_id', parent_chat_id,
    'root_chat_id', root_chat_id, 'title', title, 'system_prompt', system_prompt,
    'plan_mode', plan_mode, 'client_type', client_type, 'labels', labels,
    'dynamic_tools', dynamic_tools, 'mcp_server_ids', mcp_server_ids, 'archived', archived,
    'pin_order', pin_order, 'created_at', created_at, 'updated_at', updated_at)::text AS line
FROM chats WHERE owner_id = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id > $2)
ORDER BY id LIMIT {PAGE}
"""

_TURNS = f"""
SELECT position AS at, json_build_object('type', 'turn', 'id', id, 'chat_id', chat_id,
    'kind', kind, 'status', status, 'content', CASE WHEN user_message_id IS NULL THEN content END,
    'user_message_id', user_message_id, 'plan_mode', plan_mode,
    'model_config_id', model_config_id, 'mcp_server_ids', mcp_server_ids, 'notices', notices,
    'error', error, 'queued_at', queued_at, 'started_at', started_at, 'finished_at', finished_at,
    'open_items', (SELECT json_agg(json_build_object('id', i.id, 'kind', i.kind, 'state', i.state,
        'data', i.data, 'answer', i.answer, 'created_at', i.created_at,
        'answered_at', i.answered_at) ORDER BY i.created_at, i.id)
        FROM open_items i WHERE i.turn_id = turns.id))::text AS line
FROM turns WHERE chat_id = $1 AND ($2::bigint IS NULL OR position > $2)
ORDER BY position LIMIT {PAGE}
"""

_MESSAGES = f"""
SELECT id AS at, json_build_object('type', 'message', 'id', id, 'chat_id', chat_id,
    'turn_id', turn_id, 'step', step, 'role', role, 'content', content, 'visibility', visibility,
    'deleted', deleted, 'usage', usage, 'created_at', created_at)::text AS line
FROM chat_messages WHERE chat_id = $1 AND ($2::bigint IS NULL OR id > $2)
ORDER BY id LIMIT {PAGE}
"""

_CALLS = f"""
SELECT id AS at, json_build_object('type', 'tool_call', 'id', id, 'chat_id', chat_id,
    'turn_id', turn_id, 'tool_call_id', tool_call_id, 'tool_name', tool_name,
    'server_id', server_id, 'state', state, 'arguments', arguments, 'result', result,
    'intended_at', intended_at, 'sent_at', sent_at, 'finished_at', finished_at)::text AS line
FROM tool_calls WHERE chat_id = $1 AND ($2::bigint IS NULL OR id > $2)
ORDER BY id LIMIT {PAGE}
"""

_FILES = """
SELECT f.id AS at, json_build_object('type', 'file', 'id', f.id, 'kind', f.kind, 'name', f.name,
    'media_type', f.media_type, 'size', f.size, 'sha256', encode(f.sha256, 'hex'),
    'chat_ids', ARRAY(SELECT l.chat_id FROM chat_files l WHERE l.file_id = f.id),
    'created_at', f.created_at)::text AS line, f.data
FROM files f WHERE f.owner_id = $1 AND ($2::uuid IS NULL OR f.id > $2) ORDER BY f.id LIMIT 1
"""
"""One at a time: ten megabytes each."""

_USAGE = f"""
SELECT id AS at, json_build_object('type', 'usage', 'at', at, 'chat_id', chat_id,
    'turn_id', turn_id, 'kind', kind, 'model_config_id', model_config_id,
    'input_tokens', input_tokens, 'output_tokens', output_tokens, 'total_tokens', total_tokens,
    'reasoning_tokens', reasoning_tokens, 'cache_creation_tokens', cache_creation_tokens,
    'cache_read_tokens', cache_read_tokens, 'cost_micros', cost_micros)::text AS line
FROM usage_entries WHERE owner_id = $1 AND ($2::bigint IS NULL OR id > $2)
ORDER BY id LIMIT {PAGE}
"""

_OF_USER = (_USER, _GROUPS, _SETTINGS, _TOKENS, _LINKS, _CONNECTIONS, _SESSIONS)

END = b'{"type": "end"}\n'


async def export_user(db: Database, user_id: UUID) -> AsyncGenerator[bytes]:
    """Some lines at a time, in bounded memory."""
    for query in _OF_USER:
        yield b"".join(_line(row["line"]) for row in await db.fetch(query, user_id))
    async for lines in _chats(db, user_id):
        yield lines
    async for lines in _files(db, user_id):
        yield lines
    async for lines in _pages(db, _USAGE, user_id):
        yield lines
    yield END


async def _chats(db: Database, user_id: UUID) -> AsyncGenerator[bytes]:
    last: UUID | None = None
    while rows := await db.fetch(_CHATS, user_id, last):
        for row in rows:
            last = row["at"]
            yield _line(row["line"])
            for query in (_TURNS, _MESSAGES, _CALLS):
                async for lines in _pages(db, query, row["at"]):
                    yield lines


async def _pages(db: Database, query: str, of: UUID) -> AsyncGenerator[bytes]:
    last: int | None = None
    while rows := await db.fetch(query, of, last):
        last = rows[-1]["at"]
        yield b"".join(_line(row["line"]) for row in rows)


async def _files(db: Database, user_id: UUID) -> AsyncGenerator[bytes]:
    """With their bytes, in base64."""
    last: UUID | None = None
    while row := await db.fetch_one(_FILES, user_id, last):
        last = row["at"]
        yield row["line"].removesuffix("}").encode() + b', "data": "'
        yield base64.b64encode(row["data"])
        yield b'"}\n'


def _line(text: str) -> bytes:
    """A `json` column gives back the text as it was written, which may have been on many lines."""
    return text.replace("\n", " ").encode() + b"\n"
