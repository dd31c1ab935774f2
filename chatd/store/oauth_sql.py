"""The statements of `chatd.store.oauth_tokens`."""

from sqlalchemy import text

from chatd.store import hot

MAX_STEP_UPS = 3

_COLUMNS = f"""id, server_id, user_id, issuer, client_id, token_url, resource, scopes, token_type,
    access_token, access_token_key_id, refresh_token, refresh_token_key_id, generation,
    lifetime_seconds, expires_at - clock_timestamp() AS ends_in, needs_reauth,
    {hot.MAY_RETRY} AS may_retry"""

READ = f"SELECT {_COLUMNS} FROM oauth_tokens o WHERE id = $1"

_WHOSE = {
    (True, True): "server_id = {server} AND user_id = {user}",
    (True, False): "server_id = {server} AND user_id IS NULL AND CAST({user} AS uuid) IS NULL",
    (False, True): "user_id = {user} AND server_id IS NULL AND CAST({server} AS uuid) IS NULL",
}
"""By whether there is a server and a user: `IS NOT DISTINCT FROM` would find them by no index."""

READ_OF = {
    given: f"SELECT {_COLUMNS} FROM oauth_tokens o WHERE {whose.format(server='$1', user='$2')}"
    for given, whose in _WHOSE.items()
}

TOKENS_OF = f"SELECT {_COLUMNS} FROM oauth_tokens o WHERE user_id = $1 ORDER BY created_at, id"

DELETE_OF = text("DELETE FROM oauth_tokens WHERE user_id = :user")

SAVE_GRANT = text(
    """INSERT INTO oauth_tokens AS t (id, server_id, user_id, issuer, client_id, token_url,
        resource, scopes, token_type, access_token, access_token_key_id, refresh_token,
        refresh_token_key_id, lifetime_seconds, expires_at)
    VALUES (:id, :server_id, :user_id, :issuer, :client_id, :token_url, :resource,
        :scopes, :token_type, :access_token, :access_token_key_id, :refresh_token,
        :refresh_token_key_id, :lifetime,
        clock_timestamp() + make_interval(secs => CAST(:lifetime AS float8)))
    ON CONFLICT (user_id, server_id) DO UPDATE SET id = excluded.id, issuer = excluded.issuer,
        client_id = excluded.client_id, token_url = excluded.token_url,
        resource = excluded.resource, scopes = excluded.scopes, token_type = excluded.token_type,
        access_token = excluded.access_token, access_token_key_id = excluded.access_token_key_id,
        refresh_token = excluded.refresh_token,
        refresh_token_key_id = excluded.refresh_token_key_id,
        lifetime_seconds = excluded.lifetime_seconds, expires_at = excluded.expires_at,
        generation = 1, refreshing_until = NULL, refresher = NULL, left_behind = false,
        attempted_at = NULL, needs_reauth = NULL, last_error = '', refusals = 0, retries = 0,
        retry_at = NULL, wanted_scopes = '',
        step_ups = CASE WHEN t.wanted_scopes = '' THEN 0 ELSE t.step_ups END,
        created_at = excluded.created_at, refreshed_at = excluded.refreshed_at, used_at = NULL"""
)
"""One statement: of two grants at once one stays, whole. One that was asked to step up keeps the
count of it, so that a server which is never content does not ask for ever."""

TAKE_LEASE = """
WITH seen AS (
    SELECT id, left_behind OR refresher IS NOT NULL AS left_behind FROM oauth_tokens
    WHERE id = $1 AND generation = $2 AND needs_reauth IS NULL
        AND coalesce(refreshing_until <= clock_timestamp(), true)
    FOR NO KEY UPDATE
)
UPDATE oauth_tokens t SET refresher = $3, left_behind = seen.left_behind,
    refreshing_until = clock_timestamp() + make_interval(secs => $4),
    attempted_at = clock_timestamp()
FROM seen WHERE t.id = seen.id RETURNING t.left_behind
"""

SAVE_REFRESH = f"""
UPDATE oauth_tokens o SET generation = generation + 1, access_token = $4, access_token_key_id = $5,
    refresh_token = coalesce($6, refresh_token),
    refresh_token_key_id = CASE WHEN $6::bytea IS NULL THEN refresh_token_key_id ELSE $7 END,
    token_type = $8, scopes = coalesce($9, scopes), lifetime_seconds = $10,
    expires_at = clock_timestamp() + make_interval(secs => $10),
    refreshing_until = CASE WHEN refresher = $3 THEN NULL ELSE refreshing_until END,
    refresher = nullif(refresher, $3), left_behind = false, last_error = '',
    refusals = 0, needs_reauth = NULL, refreshed_at = clock_timestamp()
WHERE id = $1 AND generation = $2 AND {hot.UNDECIDED}
RETURNING {_COLUMNS}
"""
"""A lease that ran out meanwhile is no reason to lose what the server has handed out already; only
whoever took it over keeps theirs. Nor is a doubt that came up meanwhile: it was about the
generation before."""

RELEASE = """
UPDATE oauth_tokens SET refresher = NULL, last_error = $3,
    refreshing_until = clock_timestamp() + nullif(make_interval(secs => $4), interval '0')
WHERE id = $1 AND refresher = $2
"""

_IN_A_ROW = """CASE WHEN retry_at > clock_timestamp() - interval '1 hour' THEN retries ELSE 0 END"""
"""Marked again within an hour of the last try: that try failed."""

MARK = text(
    f"""UPDATE oauth_tokens o SET needs_reauth = :reason, last_error = :error, refresher = NULL,
        refreshing_until = NULL, retries = CASE WHEN :doubtful THEN {_IN_A_ROW} + 1 ELSE 0 END,
        retry_at = CASE WHEN :doubtful THEN clock_timestamp()
            + interval '1 minute' * least(power(2, least({_IN_A_ROW}, 6)), 60) END
    WHERE id = :id AND generation = :generation
        AND (needs_reauth IS NULL OR needs_reauth = :reason AND {hot.MAY_RETRY})
    RETURNING greatest(retries, 1) AS times"""
)
"""One that cannot be read is tried without its mark being taken away: that try can fail too."""

TRY_AGAIN = f"""
UPDATE oauth_tokens o SET needs_reauth = NULL
WHERE id = $1 AND generation = $2 AND ({hot.MAY_RETRY} OR needs_reauth = 'tampered')
RETURNING {_COLUMNS}
"""
"""`last_error` stays: what was wrong is not known to be over. Whoever has read one that others
could not read need not wait."""

COUNT_REFUSAL = """
UPDATE oauth_tokens SET refusals = refusals + 1,
    retry_at = clock_timestamp() + interval '2 minutes'
WHERE id = $1 AND generation = $2 AND needs_reauth IS NULL
    AND coalesce(retry_at <= clock_timestamp(), true)
RETURNING refusals
"""
"""At most one in two minutes, so that a moment of nonsense is never several."""

WANT_SCOPES = f"""
UPDATE oauth_tokens SET step_ups = step_ups + 1, wanted_scopes = (
    SELECT string_agg(asked.scope, ' ' ORDER BY asked.first) FROM (
        SELECT scope, min(place) AS first
        FROM regexp_split_to_table(concat_ws(' ', scopes, wanted_scopes, $2::text), '\\s+')
            WITH ORDINALITY AS word(scope, place)
        WHERE scope <> '' GROUP BY scope) AS asked)
WHERE id = $1 AND step_ups < {MAX_STEP_UPS} AND EXISTS (
    SELECT 1 FROM regexp_split_to_table($2::text, '\\s+') AS word(scope)
    WHERE scope <> '' AND NOT scope = ANY (regexp_split_to_array(scopes, '\\s+')))
RETURNING wanted_scopes
"""

TOUCH = """
UPDATE oauth_tokens SET used_at = clock_timestamp()
WHERE id = $1 AND coalesce(used_at < clock_timestamp() - interval '1 minute', true)
"""

TAKE_DUE = """
UPDATE oauth_tokens SET attempted_at = clock_timestamp() WHERE id IN (
    SELECT t.id FROM oauth_tokens t LEFT JOIN users u ON u.id = t.user_id
    WHERE t.refresh_token IS NOT NULL AND t.needs_reauth IS NULL
        AND t.refreshed_at < clock_timestamp() - make_interval(secs => $1 * 86400)
        AND coalesce(t.attempted_at < clock_timestamp() - interval '1 hour', true)
        AND u.suspended IS NOT TRUE
    ORDER BY t.refreshed_at LIMIT $2 FOR NO KEY UPDATE OF t SKIP LOCKED)
RETURNING id
"""
"""Noted as attempted at once, whatever comes of it: what cannot even be asked for does not keep
others from their turn, and another process takes others."""

DELETE = {
    given: text(
        f"""DELETE FROM oauth_tokens WHERE {whose.format(server=":server", user=":user")}
        RETURNING id"""
    )
    for given, whose in _WHOSE.items()
}
