"""A worker's fenced writes."""

from chatd.core.usage import UsageKind

_FENCE = """
WITH chat AS (
    SELECT id, version, archived FROM chats WHERE id = $1 FOR NO KEY UPDATE
), fence AS (
    SELECT t.id, t.chat_id, t.owner_id, t.status, t.attempt FROM turns t, chat
    WHERE t.id = $2 AND t.lease_id = $3 AND t.chat_id = chat.id FOR UPDATE OF t
)"""

_MESSAGES = """message AS (
    INSERT INTO chat_messages (chat_id, turn_id, step, position, model_config_id, role, content,
        usage, context_limit, total_cost_micros, runtime_ms, provider_response_id, version)
    SELECT $1, $2, m.step, m.position, m.model_config_id, m.role, m.content, m.usage,
        m.context_limit, m.total_cost_micros, m.runtime_ms, m.provider_response_id, bump.version
    FROM bump, json_to_recordset($4::json) AS m(step int, position int, model_config_id uuid,
        role text, content json, usage json, context_limit int, total_cost_micros bigint,
        runtime_ms int, provider_response_id text)
    ORDER BY m.step, m.position
    RETURNING id, step, position, created_at, model_config_id, usage, total_cost_micros
)"""


def _spent(kind: UsageKind) -> str:
    return f"""spent AS (
    INSERT INTO usage_entries (owner_id, chat_id, turn_id, kind, model_config_id, cost_micros,
        input_tokens, output_tokens, total_tokens, reasoning_tokens, cache_creation_tokens,
        cache_read_tokens)
    SELECT fence.owner_id, $1, $2, '{kind}', message.model_config_id, message.total_cost_micros,
        u.input_tokens, u.output_tokens, u.total_tokens, u.reasoning_tokens,
        u.cache_creation_tokens, u.cache_read_tokens
    FROM fence, message, json_to_record(message.usage) AS u(input_tokens bigint,
        output_tokens bigint, total_tokens bigint, reasoning_tokens bigint,
        cache_creation_tokens bigint, cache_read_tokens bigint)
    WHERE message.usage IS NOT NULL
)"""


_MESSAGE_ROWS = """
    (SELECT jsonb_agg(jsonb_build_array(message.id, message.created_at)
        ORDER BY message.step, message.position) FROM message) AS messages
"""

COMMIT_STEP = f"""
{_FENCE}, bump AS (
    UPDATE chats c SET version = c.version + 1, updated_at = clock_timestamp()
    FROM fence WHERE c.id = fence.chat_id RETURNING c.version
), {_MESSAGES}, {_spent("step")}, call AS (
    INSERT INTO tool_calls (chat_id, turn_id, user_id, step, position, tool_call_id, tool_name,
        server_id, original_name, definition_hash, safe, state, attempt, arguments)
    SELECT $1, $2, fence.owner_id, j.step, j.position, j.tool_call_id, j.tool_name, j.server_id,
        j.original_name, j.definition_hash, j.safe, 'intended', fence.attempt, j.arguments
    FROM bump, fence, jsonb_to_recordset($5::jsonb) AS j(step int, position int,
        tool_call_id text, tool_name text, server_id uuid, original_name text,
        definition_hash text, safe boolean, arguments text)
), turn AS (
    UPDATE turns t SET commits = t.commits + 1, lost = 0, version = bump.version,
        notices = t.notices || $6::jsonb, first_token_at = coalesce(t.first_token_at,
            clock_timestamp() - make_interval(secs => $7::float8))
    FROM bump, fence WHERE t.id = fence.id RETURNING t.commits
)
SELECT bump.version, fence.status, turn.commits, {_MESSAGE_ROWS} FROM bump, fence, turn
"""

COMMIT_RESULTS = f"""
{_FENCE}, bump AS (
    UPDATE chats c SET version = c.version + 1, updated_at = clock_timestamp()
    FROM fence WHERE c.id = fence.chat_id RETURNING c.version
), {_MESSAGES}, call AS (
    UPDATE tool_calls j SET result = r.result,
        state = CASE WHEN j.state = 'intended' AND r.state = 'unknown' THEN 'cancelled'
            ELSE r.state END,  -- what never left is not unknown
        finished_at = coalesce(j.finished_at, clock_timestamp())
    FROM bump, json_to_recordset($5::json) AS r(step int, position int, state text, result json)
    WHERE j.turn_id = $2 AND j.step = r.step AND j.position = r.position
), turn AS (
    UPDATE turns t SET commits = t.commits + 1, lost = 0, version = bump.version,
        notices = t.notices || $6::jsonb
    FROM bump, fence WHERE t.id = fence.id RETURNING t.commits
)
SELECT bump.version, fence.status, turn.commits, {_MESSAGE_ROWS} FROM bump, fence, turn
"""

MARK_SENT = """
WITH fence AS (
    SELECT id, status FROM turns WHERE id = $1 AND lease_id = $2 FOR UPDATE
), policy AS (
    SELECT version FROM policy_state FOR SHARE
), sent AS (
    UPDATE tool_calls j SET state = 'sent', sent_at = clock_timestamp()
    FROM fence, policy
    WHERE j.turn_id = fence.id AND j.step = $3 AND j.position = ANY ($4::int[])
        AND j.state IN ('intended', 'waiting', 'sent') AND policy.version = $5
        AND fence.status = 'running'  -- a stopped turn sends nothing more
    RETURNING j.position
)
SELECT policy.version AS policy_version, ARRAY(SELECT position FROM sent) AS positions
FROM fence, policy
"""

RECORD_RESULT = """
WITH fence AS (SELECT id FROM turns WHERE id = $1 AND lease_id = $2 FOR UPDATE)
UPDATE tool_calls j SET state = $5, result = $6::json, finished_at = clock_timestamp()
FROM fence WHERE j.turn_id = fence.id AND j.step = $3 AND j.position = $4
RETURNING j.position
"""

FINISH = f"""
{_FENCE}, fresh AS (
    SELECT fence.*, chat.archived FROM fence JOIN chat ON true
        JOIN chats seen ON seen.id = chat.id AND seen.version = chat.version
), bump AS (
    UPDATE chats c SET version = c.version + 1, updated_at = clock_timestamp()
    FROM fresh WHERE c.id = fresh.chat_id RETURNING c.version
), {_MESSAGES}, {_spent("step")}, kept AS (
    SELECT count(*) FROM message  -- before a promoted message takes its id
), turn AS (
    UPDATE turns t
    SET status = CASE fresh.status WHEN 'interrupting' THEN 'interrupted' ELSE $5 END,
        error = CASE fresh.status WHEN 'interrupting' THEN NULL ELSE $6::json END,
        notices = t.notices || $7::jsonb, version = bump.version, commits = t.commits + 1,
        lease_id = NULL, lease_expires_at = NULL,
        first_token_at = coalesce(t.first_token_at,
            clock_timestamp() - make_interval(secs => $8::float8)), finished_at = clock_timestamp()
    FROM bump, fresh, kept WHERE t.id = fresh.id
    RETURNING t.status, fresh.archived
), items AS (
    UPDATE open_items i SET state = 'cancelled', answered_at = clock_timestamp(),
        version = bump.version
    FROM bump, fresh WHERE i.turn_id = fresh.id AND i.state = 'open'  -- nobody took it back
), head AS (
    SELECT q.id, bump.version FROM turn, bump, turns q
    WHERE q.chat_id = $1 AND q.status = 'queued' AND turn.status <> 'failed' AND NOT turn.archived
    ORDER BY q.position LIMIT 1
), promoted AS (
    UPDATE turns t SET status = 'pending', pending_at = clock_timestamp(), version = head.version,
        user_message_id = nextval('chat_messages_id_seq')
    FROM head WHERE t.id = head.id
    RETURNING t.id, t.chat_id, t.owner_id, t.model_config_id, t.content, t.user_message_id,
        t.version, t.kind
), promoted_message AS (
    INSERT INTO chat_messages (id, chat_id, turn_id, step, position, created_by, model_config_id,
        role, content, version)
    SELECT p.user_message_id, p.chat_id, p.id, 0, 0, p.owner_id, p.model_config_id, 'user',
        p.content, p.version FROM promoted p WHERE p.kind = 'message'
)
SELECT EXISTS (SELECT 1 FROM fresh) AS fresh, bump.version, turn.status,
    promoted.id AS promoted_id, {_MESSAGE_ROWS},
    EXISTS (SELECT 1 FROM turns WHERE status = 'pending') AS more
FROM fence LEFT JOIN bump ON true LEFT JOIN turn ON true LEFT JOIN promoted ON true
"""

HAND_BACK = f"""
{_FENCE}, bump AS (
    UPDATE chats c SET version = c.version + 1 FROM fence
    WHERE c.id = fence.chat_id AND fence.status = 'running' RETURNING c.version
), items AS (
    UPDATE open_items i SET state = 'cancelled', answered_at = clock_timestamp(),
        version = bump.version
    FROM bump, fence WHERE i.turn_id = fence.id AND i.state = 'open'
)
UPDATE turns t SET status = 'pending', pending_at = clock_timestamp(), version = bump.version,
    lease_id = NULL, lease_expires_at = NULL, worker_id = NULL, notices = t.notices || $4::jsonb
FROM bump, fence WHERE t.id = fence.id
RETURNING t.version
"""

LANDED = """
SELECT t.version, t.status, t.commits,
    (SELECT jsonb_agg(jsonb_build_array(m.id, m.created_at) ORDER BY m.position)
        FROM chat_messages m WHERE m.turn_id = t.id AND m.step = $3
            AND m.position >= $4 AND m.position < $4 + $5) AS messages
FROM turns t WHERE t.id = $1 AND t.lease_id = $2
"""

COMMIT_COMPACTION = f"""
{_FENCE}, summary AS (
    SELECT nextval('chat_messages_id_seq') AS id FROM fence
), bump AS (
    UPDATE chats c SET version = c.version + 1, updated_at = clock_timestamp(),
        context_from_message_id = summary.id
    FROM fence, summary WHERE c.id = fence.chat_id RETURNING c.version
), message AS (
    INSERT INTO chat_messages (id, chat_id, turn_id, step, position, model_config_id, role, content,
        usage, context_limit, total_cost_micros, runtime_ms, provider_response_id, visibility,
        compressed, version)
    SELECT CASE m.rank WHEN 1 THEN summary.id ELSE nextval('chat_messages_id_seq') END, $1, $2,
        m.step, m.position, m.model_config_id, m.role, m.content, m.usage, m.context_limit,
        m.total_cost_micros, m.runtime_ms, m.provider_response_id, m.visibility, m.compressed,
        bump.version
    FROM bump, summary, (SELECT *, row_number() OVER (ORDER BY r.position) AS rank
        FROM json_to_recordset($4::json) AS r(step int, position int, model_config_id uuid,
            role text, content json, usage json, context_limit int, total_cost_micros bigint,
            runtime_ms int, provider_response_id text, visibility text, compressed boolean)) AS m
    ORDER BY m.rank
    RETURNING id, step, position, created_at, model_config_id, usage, total_cost_micros
), {_spent("compaction")}, turn AS (
    UPDATE turns t SET commits = t.commits + 1, lost = 0, version = bump.version,
        notices = t.notices || $5::jsonb
    FROM bump, fence WHERE t.id = fence.id RETURNING t.commits
)
SELECT bump.version, fence.status, turn.commits, {_MESSAGE_ROWS} FROM bump, fence, turn
"""
