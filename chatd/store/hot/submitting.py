"""Accepting turns."""

from chatd.store.hot.pieces import ACTIVE, CHAT_COLUMNS, MAY_USE, TURN_COLUMNS, USABLE_MODEL

_USABLE = f"""usable AS MATERIALIZED (
    SELECT s.id, s.slug, s.availability FROM mcp_server_configs s
    WHERE s.enabled AND {MAY_USE.format(user="$2")}
)"""
"""Materialized: to plan it in every place would cost more than the whole statement."""

_FORCED = """ARRAY(SELECT s.id FROM usable s WHERE s.availability = 'force_on'
                AND NOT s.id = ANY (coalesce({chosen}, '{{}}')) ORDER BY s.slug)"""
"""What no user can leave out, to be stored after what was chosen; the turn looks again."""

CREATE_CHAT = f"""
WITH {_USABLE}, model AS (
    {USABLE_MODEL} AND CASE WHEN $6::uuid IS NULL THEN m.is_default ELSE m.id = $6 END
), unknown AS (
    SELECT array_agg(asked ORDER BY place) AS ids
    FROM unnest($8::uuid[]) WITH ORDINALITY AS list(asked, place)
    WHERE NOT EXISTS (SELECT 1 FROM usable s WHERE s.id = asked)
), chat AS (
    INSERT INTO chats AS c (id, owner_id, title, system_prompt, plan_mode, client_type,
        last_model_config_id, last_reasoning_effort, mcp_server_ids, labels, dynamic_tools,
        archived, pin_order, version)
    SELECT $1, $2, $3, $4, $5, $10, model.id, $7,
        coalesce($8, ARRAY(SELECT s.id FROM usable s
            WHERE s.availability = 'default_on' ORDER BY s.slug))
            || {_FORCED.format(chosen="$8")},
        $9::jsonb, $17::jsonb, false, 0, 1
    FROM model, unknown WHERE unknown.ids IS NULL
    RETURNING {CHAT_COLUMNS}
), turn AS (
    INSERT INTO turns AS t (id, chat_id, owner_id, status, content, plan_mode, model_config_id,
        reasoning_effort, mcp_server_ids, user_message_id, idempotency_path, idempotency_key,
        request_sha256, traceparent, version, pending_at, on_auth_required)
    SELECT $11, chat.id, $2, 'pending', $12::json, $5, chat.last_model_config_id, $7,
        chat.mcp_server_ids, nextval('chat_messages_id_seq'), $13, $14, $15, $16, 1,
        clock_timestamp(), $18
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
WITH {_USABLE}, chat AS (
    SELECT id, owner_id, version, archived, last_model_config_id, mcp_server_ids,
        coalesce(mode = 'explore' AND $6::uuid[] <> mcp_server_ids, false) AS fixed_servers
    FROM chats WHERE id = $1 AND owner_id = $2 AND deleted_at IS NULL FOR NO KEY UPDATE
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
    WHERE NOT EXISTS (SELECT 1 FROM usable s WHERE s.id = asked)
        AND NOT asked = ANY ((SELECT mcp_server_ids FROM chat)::uuid[])
), bump AS (
    UPDATE chats c SET version = c.version + 1, updated_at = clock_timestamp(),
        last_model_config_id = model.id,
        last_reasoning_effort = coalesce($5, c.last_reasoning_effort),
        mcp_server_ids = CASE WHEN $6 IS NULL OR c.mode = 'explore' THEN c.mcp_server_ids
            ELSE $6 || {_FORCED.format(chosen="$6")} END,
        plan_mode = CASE WHEN $7::text IS NULL THEN c.plan_mode ELSE nullif($7, '') END
    FROM fresh, state, model, unknown
    WHERE c.id = fresh.id AND NOT fresh.archived AND unknown.ids IS NULL
        AND NOT fresh.fixed_servers
        AND (state.queued < $13 OR NOT state.busy)  -- then the head leaves the queue
    RETURNING c.id, c.owner_id, c.version, c.plan_mode, c.last_model_config_id,
        c.last_reasoning_effort, c.mcp_server_ids
), turn AS (
    INSERT INTO turns AS t (id, chat_id, owner_id, status, content, plan_mode, model_config_id,
        reasoning_effort, mcp_server_ids, user_message_id, idempotency_path, idempotency_key,
        request_sha256, traceparent, version, pending_at, kind, on_auth_required)
    SELECT $3, bump.id, bump.owner_id,
        CASE WHEN state.busy OR state.queued > 0 THEN 'queued' ELSE 'pending' END,
        $8::json, bump.plan_mode, bump.last_model_config_id, bump.last_reasoning_effort,
        bump.mcp_server_ids,
        CASE WHEN state.busy OR state.queued > 0 THEN NULL
            ELSE nextval('chat_messages_id_seq') END,
        $9, $10, $11, $12, bump.version,
        CASE WHEN state.busy OR state.queued > 0 THEN NULL ELSE clock_timestamp() END, $14, $15
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
    FROM bump, (
        SELECT id, chat_id, user_message_id, model_config_id, content, status, kind FROM turn
        UNION ALL
        SELECT id, chat_id, user_message_id, model_config_id, content, status, kind FROM promoted
    ) AS t
    WHERE t.status = 'pending' AND t.kind = 'message'
    RETURNING turn_id, created_at
)
SELECT chat.id IS NOT NULL AS found, fresh.id IS NOT NULL AS fresh, chat.archived,
    chat.fixed_servers, state.busy,
    state.queued, (SELECT id FROM model) AS model, unknown.ids AS unknown,
    bump.version, turn.*, message.created_at AS message_created_at
FROM state CROSS JOIN unknown LEFT JOIN chat ON true LEFT JOIN fresh ON true
    LEFT JOIN bump ON true LEFT JOIN turn ON true
    LEFT JOIN message ON message.turn_id = turn.id
"""
