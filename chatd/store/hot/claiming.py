"""Claiming turns, loading their world, keeping their leases."""

from chatd.store.hot.pieces import BARRED, LEASE

_BUSY = """
WITH busy AS (
    SELECT owner_id, count(*) AS turns FROM turns
    WHERE status IN ('running', 'interrupting') GROUP BY owner_id
)"""

_PLACE = "coalesce(served.place, 0) AS place"

_BUSY_TURNS = "coalesce(busy.turns, 0)"

_WAITING = """turns t LEFT JOIN busy USING (owner_id)
        LEFT JOIN unnest($3::uuid[]) WITH ORDINALITY AS served(owner_id, place) USING (owner_id)"""

_OWNER_AT_WORK = "(SELECT u.suspended FROM users u WHERE u.id = t.owner_id) IS NOT TRUE"
"""For a few turns `t`. Not as a join, which might read all users."""

_CLAIMED = f"""
), head AS (
    SELECT t.id, t.chat_id FROM ranked JOIN turns t ON t.id = ranked.id
        JOIN chats c ON c.id = t.chat_id
    WHERE t.status = 'pending' AND NOT c.archived AND c.deleted_at IS NULL
        AND ($4::int = 0 OR ranked.rank <= $4) AND {_OWNER_AT_WORK}
    ORDER BY ranked.rank, ranked.place, ranked.pending_at LIMIT $1
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

LIMITED = """EXISTS (SELECT 1 FROM model_providers p
            WHERE p.max_concurrent_turns IS NOT NULL AND p.deleted_at IS NULL)"""

CLAIM = f"""
{_BUSY}, ranked AS (
    SELECT t.id, t.pending_at, {_PLACE}, {_BUSY_TURNS}
        + row_number() OVER (PARTITION BY t.owner_id ORDER BY t.pending_at) AS rank
    FROM {_WAITING}
    WHERE t.status = 'pending'
        AND (SELECT NOT claims_paused AND NOT {LIMITED} FROM policy_state)
    ORDER BY rank, place, t.pending_at LIMIT 256
{_CLAIMED}
"""
"""Rank: how many turns its owner would have running with this one, so every owner's first is in
the window however many another has pending. Between equals, whose owner this worker has not
served lately ($3, the latest last) comes first: at capacity 1 nothing runs when it claims, and the
oldest would else be the same owner's every time. $4: an owner's limit, 0 for none. Claims at the
same moment rank alike, so they do not pass it together.

It claims nothing where a provider has a limit, of which this worker may not have heard yet."""

LOCK_CLAIMS = """
SELECT set_config('lock_timeout', '2s', true),
    pg_advisory_xact_lock(hashtextextended('chatd claims', 0))
"""
"""Those that count a provider's running turns take turns, so that they do not pass a limit."""

ROOM = """room AS (
    SELECT p.id, p.max_concurrent_turns - count(r.id) AS turns
    FROM model_providers p LEFT JOIN model_configs m ON m.provider_id = p.id
        LEFT JOIN turns r ON r.model_config_id = m.id AND r.status IN ('running', 'interrupting')
    WHERE p.max_concurrent_turns IS NOT NULL AND p.deleted_at IS NULL GROUP BY p.id
)"""

CLAIMABLE = """JOIN chats c ON c.id = t.chat_id
        LEFT JOIN model_configs m ON m.id = t.model_config_id
        LEFT JOIN room ON room.id = m.provider_id
    WHERE t.status = 'pending' AND NOT (SELECT claims_paused FROM policy_state)
        AND NOT c.archived AND c.deleted_at IS NULL AND coalesce(room.turns, 1) > 0
        AND NOT EXISTS (SELECT 1 FROM users u WHERE u.id = t.owner_id AND u.suspended)"""
"""Which of the turns `t` a worker could claim; `ROOM` comes before it."""

CLAIM_LIMITED = f"""
{_BUSY}, {ROOM}, waiting AS (
    SELECT t.id, t.owner_id, t.pending_at, room.id AS provider, room.turns AS room, {_PLACE},
        {_BUSY_TURNS} AS busy, {_BUSY_TURNS}
        + row_number() OVER (PARTITION BY t.owner_id, room.id ORDER BY t.pending_at) AS share
    FROM {_WAITING} {CLAIMABLE}
), seated AS (
    SELECT *, row_number() OVER (PARTITION BY provider ORDER BY share, place, pending_at) AS seat
    FROM waiting WHERE $4::int = 0 OR share <= $4
), ranked AS (
    SELECT id, pending_at, place,
        busy + row_number() OVER (PARTITION BY owner_id ORDER BY pending_at) AS rank
    FROM seated WHERE room IS NULL OR seat <= room
    ORDER BY rank, place, pending_at LIMIT 256
{_CLAIMED}
"""
"""The same for providers with limits, run under `LOCK_CLAIMS`. What has to wait for a provider is
left out before anything is ranked: it holds up nobody, not even its owner's other turns. Share: how
many turns its owner would have running if all their others were another provider's."""

_TOKEN = f"""(SELECT jsonb_build_object('id', o.id, 'needs_reauth', {BARRED})
            FROM oauth_tokens o WHERE o.user_id = {{user}} AND o.server_id"""

_CONNECTION = f"""CASE s.auth_type WHEN 'oauth2' THEN {_TOKEN} = s.id)
            WHEN 'user_oidc' THEN {_TOKEN} IS NULL) END"""
"""Of a user to the server `s`: their own token for it, or that of their login. Others pay nothing
for it."""

SERVER_ROW = f"""
    jsonb_build_object('id', s.id, 'slug', s.slug, 'display_name', s.display_name,
        'transport', s.transport, 'url', s.url, 'auth_type', s.auth_type, 'version', s.version,
        'enabled', s.enabled, 'availability', s.availability,
        'tool_allow_list', s.tool_allow_list, 'tool_deny_list', s.tool_deny_list,
        'model_intent', s.model_intent, 'allow_in_plan_mode', s.allow_in_plan_mode,
        'forward_coder_headers', s.forward_coder_headers,
        'trust_annotations', s.trust_annotations,
        'require_approval', s.require_approval, 'tool_settings', s.tool_settings,
        'access', s.access, 'group_ids', CASE WHEN s.access = 'groups' THEN ARRAY(
            SELECT g.group_id FROM mcp_server_groups g WHERE g.server_id = s.id) END,
        'required_auth', s.required_auth, 'tool_changes', s.tool_changes,
        'signing_secret', encode(s.signing_secret, 'base64'),
        'signing_secret_key_id', s.signing_secret_key_id,
        'tool_timeout_seconds', s.tool_timeout_seconds, 'api_key_header', s.api_key_header,
        'api_key_value', encode(s.api_key_value, 'base64'),
        'api_key_value_key_id', s.api_key_value_key_id,
        'custom_headers', encode(s.custom_headers, 'base64'),
        'custom_headers_key_id', s.custom_headers_key_id,
        'oidc_audience', s.oidc_audience, 'connection', {_CONNECTION})
"""
"""The server `s` as a `user` (to be filled in) would use it."""

SERVERS = f"""
    SELECT jsonb_agg({SERVER_ROW.format(user="t.owner_id")} ORDER BY s.slug)
    FROM mcp_server_configs s
    WHERE s.id = ANY (t.mcp_server_ids) OR (s.enabled AND s.availability = 'force_on')
"""


GROUPS = "ARRAY(SELECT g.group_id FROM group_members g WHERE g.user_id = {owner})"


def _entered(order: str) -> str:
    """The tokens that went into a model call of this history: the first one or the last."""
    return f"""
    SELECT coalesce(nullif((h.usage->>'input_tokens')::bigint, 0),
        (h.usage->>'total_tokens')::bigint)
    FROM chat_messages h
    WHERE h.chat_id = t.chat_id AND h.id >= c.context_from_message_id AND NOT h.deleted
        AND NOT h.compressed AND h.usage IS NOT NULL
    ORDER BY h.id {order} LIMIT 1"""


LOAD = f"""
SELECT t.id, t.chat_id, t.owner_id, t.kind, t.plan_mode, t.reasoning_effort, t.mcp_server_ids,
    t.commits, t.notices, t.first_token_at, t.on_auth_required, c.system_prompt,
    extract(epoch FROM clock_timestamp() - t.started_at)::float8 - t.parked_seconds AS ran_seconds,
    c.parent_chat_id, c.root_chat_id, c.mode, c.dynamic_tools, c.title, c.title_source,
    (SELECT version FROM policy_state) AS policy_version,
    (SELECT jsonb_object_agg(d.key, d.value) FROM deployment_settings d) AS deployment,
    (SELECT jsonb_object_agg(u.key, u.value) FROM user_settings u
        WHERE u.user_id = t.owner_id) AS personal,
    m.id AS model_id, m.model, m.context_limit, m.compression_threshold, m.options,
    m.enabled AND m.deleted_at IS NULL AS model_enabled,
    p.id AS provider_id, p.provider, p.base_url, p.api_key, p.api_key_key_id,
    p.enabled AS provider_enabled,
    ({SERVERS}) AS servers, {GROUPS.format(owner="t.owner_id")} AS group_ids,
    (SELECT json_agg(json_build_object('role', h.role, 'content', h.content, 'step',
            CASE WHEN h.turn_id = t.id THEN h.step END, 'compressed', h.compressed) ORDER BY h.id)
        FROM chat_messages h
        WHERE h.chat_id = t.chat_id AND h.id >= c.context_from_message_id AND NOT h.deleted
            AND h.visibility <> 'user') AS history,
    ({_entered("ASC")}) AS entered_first, ({_entered("DESC")}) AS entered_last,
    (SELECT json_agg(json_build_object('step', j.step, 'position', j.position, 'state', j.state,
            'tool_call_id', j.tool_call_id, 'tool_name', j.tool_name, 'safe', j.safe,
            'arguments', j.arguments, 'server_id', j.server_id, 'result', j.result)
            ORDER BY j.step, j.position)
        FROM tool_calls j WHERE j.turn_id = t.id AND j.step = (
            SELECT max(last.step) FROM tool_calls last WHERE last.turn_id = t.id)) AS journal,
    (SELECT json_agg(json_build_object('id', i.id, 'step', i.step, 'position', i.position,
            'kind', i.kind, 'state', i.state, 'data', i.data, 'memory', i.memory,
            'answer', i.answer, 'answered_by', i.answered_by) ORDER BY i.created_at, i.id)
        FROM open_items i WHERE i.turn_id = t.id AND i.step = (
            SELECT max(last.step) FROM open_items last WHERE last.turn_id = t.id)) AS items
FROM turns t JOIN chats c ON c.id = t.chat_id
    LEFT JOIN model_configs m ON m.id = t.model_config_id
    LEFT JOIN model_providers p ON p.id = m.provider_id
WHERE t.id = $1 AND t.lease_id = $2
"""

RELOAD = f"""
SELECT (SELECT version FROM policy_state) AS policy_version, ({SERVERS}) AS servers,
    {GROUPS.format(owner="t.owner_id")} AS group_ids
FROM turns t WHERE t.id = $1 AND t.lease_id = $2
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
