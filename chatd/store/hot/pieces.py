"""What several statements are made of."""

from chatd.core.oauth import DOUBTFUL

LEASE = "interval '10 seconds'"

ACTIVE = "('pending', 'running', 'interrupting', 'requires_action')"

USABLE_MODEL = """
    SELECT m.id FROM model_configs m JOIN model_providers p ON p.id = m.provider_id
    WHERE m.deleted_at IS NULL AND m.enabled AND p.enabled
"""

MAY_USE = """(s.access = 'everyone' OR EXISTS (
        SELECT 1 FROM mcp_server_groups sg JOIN group_members gm USING (group_id)
        WHERE sg.server_id = s.id AND gm.user_id = {user}))"""
"""Whether a user may use the server `s`, by its groups; administrators are no exception."""

NEEDS_REAUTH = """coalesce(o.needs_reauth, CASE WHEN o.refresh_token IS NULL
        AND o.expires_at <= clock_timestamp() THEN 'expired' END)"""
"""Why the token `o` is no use any more; NULL if it is, or can be refreshed."""

_DOUBTED = f"""o.needs_reauth IN ({", ".join(f"'{reason}'" for reason in DOUBTFUL)})"""

UNDECIDED = f"coalesce({_DOUBTED}, true)"
"""Whether the token `o` is not marked for good."""

MAY_RETRY = f"coalesce({_DOUBTED} AND o.retry_at <= clock_timestamp(), false)"
"""Whether the token `o`, which is marked, is tried all the same: what was wrong may be over."""

BARRED = f"CASE WHEN NOT {MAY_RETRY} THEN {NEEDS_REAUTH} END"
"""Why no turn tries the token `o`."""

TURN_COLUMNS = """
    t.id, t.chat_id, t.kind, t.status, t.attempt, t.plan_mode, t.model_config_id, t.mcp_server_ids,
    t.reasoning_effort, t.content, t.user_message_id, t.queued_at, t.started_at, t.first_token_at,
    t.finished_at, t.notices, t.error
"""

CHAT_COLUMNS = """
    c.id, c.owner_id, c.parent_chat_id, c.root_chat_id, c.last_model_config_id,
    c.last_reasoning_effort, c.title, c.plan_mode, c.client_type, c.created_at, c.updated_at,
    c.archived, c.pin_order, c.mcp_server_ids, c.labels, c.version
"""
