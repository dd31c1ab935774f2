"""The statements on a turn's path, one constant each; a test prepares them all.

Each is its own transaction on a borrowed asyncpg connection (`Database.fetch`). Those that read the
queue lock the chat and compare the locked row's `version` with the snapshot's: a statement keeps
the snapshot it began with, so after waiting for the lock it would not see what was queued
meanwhile. Then it writes nothing, `fresh` is false, and the caller runs it again.

Worker writes carry the lease in `fence`; without it they write nothing and return no row.
"""

LEASE = "interval '10 seconds'"

ACTIVE = "('pending', 'running', 'interrupting', 'requires_action')"

USABLE_MODEL = """
    SELECT m.id FROM model_configs m JOIN model_providers p ON p.id = m.provider_id
    WHERE m.deleted_at IS NULL AND m.enabled AND p.enabled
"""

TURN_COLUMNS = """
    t.id, t.chat_id, t.status, t.attempt, t.plan_mode, t.model_config_id, t.mcp_server_ids,
    t.reasoning_effort, t.content, t.user_message_id, t.queued_at, t.started_at, t.first_token_at,
    t.finished_at, t.notices, t.error
"""

CHAT_COLUMNS = """
    c.id, c.owner_id, c.parent_chat_id, c.root_chat_id, c.last_model_config_id,
    c.last_reasoning_effort, c.title, c.plan_mode, c.client_type, c.created_at, c.updated_at,
    c.archived, c.pin_order, c.mcp_server_ids, c.labels, c.version
"""

CREATE_CHAT = f"""
WITH model AS (
    {USABLE_MODEL} AND CASE WHEN $6::uuid IS NULL THEN m.is_default ELSE m.id = $6 END
), unknown AS (
    SELECT array_agg(asked ORDER BY place) AS ids
    FROM unnest($8::uuid[]) WITH ORDINALITY AS list(asked, place)
    WHERE NOT EXISTS (SELECT 1 FROM mcp_server_configs s WHERE s.id = asked AND s.enabled)
), chat AS (
    INSERT INTO chats AS c (id, owner_id, title, system_prompt, plan_mode, client_type,
        last_model_config_id, last_reasoning_effort, mcp_server_ids, labels, archived, pin_order,
        version)
    SELECT $1, $2, $3, $4, $5, $10, model.id, $7,
        coalesce($8, ARRAY(SELECT s.id FROM mcp_server_configs s
            WHERE s.enabled AND s.availability = 'default_on' ORDER BY s.slug)),
        $9::jsonb, false, 0, 1
    FROM model, unknown WHERE unknown.ids IS NULL
    RETURNING {CHAT_COLUMNS}
), turn AS (
    INSERT INTO turns AS t (id, chat_id, owner_id, status, content, plan_mode, model_config_id,
        reasoning_effort, mcp_server_ids, user_message_id, idempotency_path, idempotency_key,
        request_sha256, traceparent, version, pending_at)
    SELECT $11, chat.id, $2, 'pending', $12::json, $5, chat.last_model_config_id, $7,
        chat.mcp_server_ids, nextval('chat_messages_id_seq'), $13, $14, $15, $16, 1,
        clock_timestamp()
    FROM chat
    RETURNING {TURN_COLUMNS}
), message AS (
    INSERT INTO chat_messages (id, chat_id, turn_id, step, position, created_by, model_config_id,
        role, content, version)
    SELECT turn.user_message_id, turn.chat_id, turn.id, 0, 0, $2, turn.model_config_id, 'user',
        turn.content, 1
    FROM turn RETURNING created_at
)
SELECT (SELECT ids FROM unknown) AS unknown, (SELECT id FROM model) AS model,
    turn.*, message.created_at AS message_created_at,
    chat.title, chat.created_at, chat.updated_at, chat.labels
FROM (SELECT 1) AS one LEFT JOIN turn ON true LEFT JOIN chat ON true LEFT JOIN message ON true
"""

SUBMIT = f"""
WITH chat AS (
    SELECT id, owner_id, version, archived, last_model_config_id, mcp_server_ids FROM chats
    WHERE id = $1 AND owner_id = $2 AND deleted_at IS NULL FOR NO KEY UPDATE
), fresh AS (
    SELECT chat.* FROM chat JOIN chats seen ON seen.id = chat.id AND seen.version = chat.version
), state AS (
    SELECT EXISTS (SELECT 1 FROM turns t WHERE t.chat_id = $1 AND t.status IN {ACTIVE}) AS busy,
        (SELECT count(*) FROM turns t WHERE t.chat_id = $1 AND t.status = 'queued') AS queued
), model AS (
    {USABLE_MODEL} AND CASE WHEN $4::uuid IS NOT NULL THEN m.id = $4
        ELSE m.is_default OR m.id = (SELECT last_model_config_id FROM chat) END
    ORDER BY m.id = (SELECT last_model_config_id FROM chat) DESC LIMIT 1
), unknown AS (
    SELECT array_agg(asked ORDER BY place) AS ids
    FROM unnest($6::uuid[]) WITH ORDINALITY AS list(asked, place)
    WHERE NOT EXISTS (SELECT 1 FROM mcp_server_configs s WHERE s.id = asked AND s.enabled)
        AND NOT asked = ANY ((SELECT mcp_server_ids FROM chat)::uuid[])
), bump AS (
    UPDATE chats c SET version = c.version + 1, updated_at = clock_timestamp(),
        last_model_config_id = model.id,
        last_reasoning_effort = coalesce($5, c.last_reasoning_effort),
        mcp_server_ids = coalesce($6, c.mcp_server_ids),
        plan_mode = CASE WHEN $7::text IS NULL THEN c.plan_mode ELSE nullif($7, '') END
    FROM fresh, state, model, unknown
    WHERE c.id = fresh.id AND NOT fresh.archived AND unknown.ids IS NULL
        AND (state.queued < $13 OR NOT state.busy)  -- then the head leaves the queue
    RETURNING c.id, c.owner_id, c.version, c.plan_mode, c.last_model_config_id,
        c.last_reasoning_effort, c.mcp_server_ids
), turn AS (
    INSERT INTO turns AS t (id, chat_id, owner_id, status, content, plan_mode, model_config_id,
        reasoning_effort, mcp_server_ids, user_message_id, idempotency_path, idempotency_key,
        request_sha256, traceparent, version, pending_at)
    SELECT $3, bump.id, bump.owner_id,
        CASE WHEN state.busy OR state.queued > 0 THEN 'queued' ELSE 'pending' END,
        $8::json, bump.plan_mode, bump.last_model_config_id, bump.last_reasoning_effort,
        bump.mcp_server_ids,
        CASE WHEN state.busy OR state.queued > 0 THEN NULL
            ELSE nextval('chat_messages_id_seq') END,
        $9, $10, $11, $12, bump.version,
        CASE WHEN state.busy OR state.queued > 0 THEN NULL ELSE clock_timestamp() END
    FROM bump, state
    RETURNING {TURN_COLUMNS}
), head AS (
    SELECT t.id, bump.version FROM turns t, bump, state
    WHERE NOT state.busy AND t.chat_id = $1 AND t.status = 'queued'
    ORDER BY t.position LIMIT 1
), promoted AS (
    UPDATE turns t SET status = 'pending', pending_at = clock_timestamp(), version = head.version,
        user_message_id = nextval('chat_messages_id_seq')
    FROM head WHERE t.id = head.id
    RETURNING t.*
), message AS (
    INSERT INTO chat_messages (id, chat_id, turn_id, step, position, created_by, model_config_id,
        role, content, version)
    SELECT t.user_message_id, t.chat_id, t.id, 0, 0, bump.owner_id, t.model_config_id, 'user',
        t.content, bump.version
    FROM bump, (SELECT id, chat_id, user_message_id, model_config_id, content, status FROM turn
        UNION ALL SELECT id, chat_id, user_message_id, model_config_id, content, status
        FROM promoted) AS t
    WHERE t.status = 'pending'
    RETURNING turn_id, created_at
)
SELECT chat.id IS NOT NULL AS found, fresh.id IS NOT NULL AS fresh, chat.archived, state.busy,
    state.queued, (SELECT id FROM model) AS model, unknown.ids AS unknown,
    bump.version, turn.*, message.created_at AS message_created_at
FROM state CROSS JOIN unknown LEFT JOIN chat ON true LEFT JOIN fresh ON true
    LEFT JOIN bump ON true LEFT JOIN turn ON true
    LEFT JOIN message ON message.turn_id = turn.id
"""

CLAIM = f"""
WITH busy AS (
    SELECT owner_id, count(*) AS turns FROM turns
    WHERE status IN ('running', 'interrupting') GROUP BY owner_id
), ranked AS (
    SELECT t.id, t.pending_at, coalesce(busy.turns, 0)
        + row_number() OVER (PARTITION BY t.owner_id ORDER BY t.pending_at) AS rank
    FROM turns t LEFT JOIN busy USING (owner_id) WHERE t.status = 'pending'
    ORDER BY rank, t.pending_at LIMIT 256
), head AS (
    SELECT t.id, t.chat_id FROM ranked JOIN turns t ON t.id = ranked.id
        JOIN chats c ON c.id = t.chat_id
    WHERE t.status = 'pending' AND NOT c.archived AND c.deleted_at IS NULL
    ORDER BY ranked.rank, ranked.pending_at LIMIT $1
    FOR NO KEY UPDATE OF t, c SKIP LOCKED
), bump AS (
    UPDATE chats c SET version = c.version + 1 FROM head WHERE c.id = head.chat_id
    RETURNING c.id, c.version
)
UPDATE turns t SET status = 'running', worker_id = $2, attempt = t.attempt + 1,
    lease_id = gen_random_uuid(), lease_expires_at = clock_timestamp() + {LEASE},
    started_at = coalesce(t.started_at, clock_timestamp()), version = bump.version
FROM head JOIN bump ON bump.id = head.chat_id
WHERE t.id = head.id
RETURNING t.id, t.chat_id, t.owner_id, t.lease_id, t.attempt, t.commits, t.version, t.traceparent,
    extract(epoch FROM clock_timestamp() - t.pending_at)::float8 AS waited_s
"""

SERVER_ROW = """
    jsonb_build_object('id', s.id, 'slug', s.slug, 'display_name', s.display_name,
        'transport', s.transport, 'url', s.url, 'auth_type', s.auth_type, 'version', s.version,
        'enabled', s.enabled, 'availability', s.availability,
        'tool_allow_list', s.tool_allow_list, 'tool_deny_list', s.tool_deny_list,
        'model_intent', s.model_intent, 'allow_in_plan_mode', s.allow_in_plan_mode,
        'forward_coder_headers', s.forward_coder_headers,
        'trust_annotations', s.trust_annotations,
        'tool_timeout_seconds', s.tool_timeout_seconds, 'api_key_header', s.api_key_header,
        'api_key_value', encode(s.api_key_value, 'base64'),
        'api_key_value_key_id', s.api_key_value_key_id,
        'custom_headers', encode(s.custom_headers, 'base64'),
        'custom_headers_key_id', s.custom_headers_key_id)
"""

SERVERS = f"""
    SELECT jsonb_agg({SERVER_ROW} ORDER BY s.slug) FROM mcp_server_configs s
    WHERE s.id = ANY (t.mcp_server_ids) OR (s.enabled AND s.availability = 'force_on')
"""

LOAD = f"""
SELECT t.id, t.chat_id, t.owner_id, t.plan_mode, t.reasoning_effort, t.mcp_server_ids, t.commits,
    t.notices, t.started_at, t.first_token_at, c.system_prompt, c.parent_chat_id, c.root_chat_id,
    (SELECT version FROM policy_state) AS policy_version,
    m.id AS model_id, m.model, m.context_limit, m.options, m.enabled AND m.deleted_at IS NULL
        AS model_enabled, p.id AS provider_id, p.provider, p.base_url, p.api_key, p.api_key_key_id,
    p.enabled AS provider_enabled,
    ({SERVERS}) AS servers,
    (SELECT json_agg(json_build_object('role', h.role, 'content', h.content, 'step',
            CASE WHEN h.turn_id = t.id THEN h.step END) ORDER BY h.id)
        FROM chat_messages h
        WHERE h.chat_id = t.chat_id AND NOT h.deleted AND h.visibility <> 'user') AS history,
    (SELECT json_agg(json_build_object('step', j.step, 'position', j.position, 'state', j.state,
            'tool_call_id', j.tool_call_id, 'tool_name', j.tool_name, 'safe', j.safe,
            'arguments', j.arguments, 'server_id', j.server_id, 'result', j.result)
            ORDER BY j.step, j.position)
        FROM tool_calls j WHERE j.turn_id = t.id) AS journal
FROM turns t JOIN chats c ON c.id = t.chat_id
    LEFT JOIN model_configs m ON m.id = t.model_config_id
    LEFT JOIN model_providers p ON p.id = m.provider_id
WHERE t.id = $1 AND t.lease_id = $2
"""

RELOAD = f"""
SELECT (SELECT version FROM policy_state) AS policy_version, ({SERVERS}) AS servers
FROM turns t WHERE t.id = $1 AND t.lease_id = $2
"""

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
    RETURNING id, step, position, created_at
)"""

_MESSAGE_ROWS = """
    (SELECT jsonb_agg(jsonb_build_array(message.id, message.created_at)
        ORDER BY message.step, message.position) FROM message) AS messages
"""

COMMIT_STEP = f"""
{_FENCE}, bump AS (
    UPDATE chats c SET version = c.version + 1, updated_at = clock_timestamp()
    FROM fence WHERE c.id = fence.chat_id RETURNING c.version
), {_MESSAGES}, call AS (
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
    SELECT id FROM turns WHERE id = $1 AND lease_id = $2 FOR UPDATE
), policy AS (
    SELECT version FROM policy_state FOR SHARE
), sent AS (
    UPDATE tool_calls j SET state = 'sent', sent_at = clock_timestamp()
    FROM fence, policy
    WHERE j.turn_id = fence.id AND j.step = $3 AND j.position = ANY ($4::int[])
        AND j.state IN ('intended', 'sent') AND policy.version = $5
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
), {_MESSAGES}, kept AS (
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
), head AS (
    SELECT q.id, bump.version FROM turn, bump, turns q
    WHERE q.chat_id = $1 AND q.status = 'queued' AND turn.status <> 'failed' AND NOT turn.archived
    ORDER BY q.position LIMIT 1
), promoted AS (
    UPDATE turns t SET status = 'pending', pending_at = clock_timestamp(), version = head.version,
        user_message_id = nextval('chat_messages_id_seq')
    FROM head WHERE t.id = head.id
    RETURNING t.id, t.chat_id, t.owner_id, t.model_config_id, t.content, t.user_message_id,
        t.version
), promoted_message AS (
    INSERT INTO chat_messages (id, chat_id, turn_id, step, position, created_by, model_config_id,
        role, content, version)
    SELECT p.user_message_id, p.chat_id, p.id, 0, 0, p.owner_id, p.model_config_id, 'user',
        p.content, p.version FROM promoted p
)
SELECT EXISTS (SELECT 1 FROM fresh) AS fresh, bump.version, turn.status,
    promoted.id AS promoted_id, {_MESSAGE_ROWS}
FROM fence LEFT JOIN bump ON true LEFT JOIN turn ON true LEFT JOIN promoted ON true
"""

HAND_BACK = f"""
{_FENCE}, bump AS (
    UPDATE chats c SET version = c.version + 1 FROM fence
    WHERE c.id = fence.chat_id AND fence.status = 'running' RETURNING c.version
)
UPDATE turns t SET status = 'pending', pending_at = clock_timestamp(), version = bump.version,
    lease_id = NULL, lease_expires_at = NULL, worker_id = NULL, notices = t.notices || $4::jsonb
FROM bump, fence WHERE t.id = fence.id
RETURNING t.version
"""

RENEW = f"""
WITH mine AS (
    SELECT t.id FROM turns t JOIN unnest($1::uuid[], $2::uuid[]) AS held(id, lease_id)
        ON held.id = t.id AND held.lease_id = t.lease_id
    FOR NO KEY UPDATE OF t SKIP LOCKED
)
UPDATE turns t SET lease_expires_at = clock_timestamp() + {LEASE} FROM mine WHERE t.id = mine.id
RETURNING t.id, t.status, (SELECT version FROM policy_state) AS policy_version
"""

LEASES = "SELECT id, lease_id, status FROM turns WHERE id = ANY ($1::uuid[])"

LANDED = """
SELECT t.version, t.status, t.commits,
    (SELECT jsonb_agg(jsonb_build_array(m.id, m.created_at) ORDER BY m.position)
        FROM chat_messages m WHERE m.turn_id = t.id AND m.step = $3
            AND m.position >= $4 AND m.position < $4 + $5) AS messages
FROM turns t WHERE t.id = $1 AND t.lease_id = $2
"""
