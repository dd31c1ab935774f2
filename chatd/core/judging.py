"""From what is known of the parts to the health report: pure, no clock, no I/O."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from chatd.core.health import (
    LOST_S,
    AgentsHealth,
    DatabaseFacts,
    DatabaseHealth,
    Facts,
    HealthReason,
    HealthReport,
    PartHealth,
    ProcessesHealth,
    ProcessFacts,
    ProcessHealth,
    ProcessKind,
    ProviderFacts,
    ProviderHealth,
    ProvidersHealth,
    QueueFacts,
    QueueHealth,
    RedisHealth,
    ServerFacts,
    ServerHealth,
    ServersHealth,
    Status,
)

FORGOTTEN_S = 3600.0
"""A process that left or was lost is shown for as long."""

WAITS_S = 10.0
"""A turn that waits longer for a worker waits too long."""

SLOW_MS = 1000.0

_BADNESS: dict[Status, int] = {"healthy": 0, "warning": 1, "error": 2}


class Finding(NamedTuple):
    status: Status
    code: str
    message: str


_UNKNOWN = Finding("error", "unknown", "This could not be read in time.")


def judge(facts: Facts) -> HealthReport:
    """As bad as its worst section."""
    report = HealthReport(
        status="healthy",
        checked_at=facts.checked_at,
        database=_database(facts.database),
        redis=_redis(facts.redis_ms),
        workers=_processes(facts, "worker"),
        apis=_processes(facts, "api"),
        agents=AgentsHealth(**_said(), items=[]),
        mcp_servers=_servers(facts.servers),
        queue=_queue(facts.queue),
        providers=_providers(facts.providers),
    )
    parts = [part for _, part in report if isinstance(part, PartHealth)]
    return report.model_copy(update={"status": _worst(part.status for part in parts)})


def _database(known: DatabaseFacts | None) -> DatabaseHealth:
    if known is None:
        away = Finding("error", "unreachable", "PostgreSQL did not answer in time.")
        return DatabaseHealth(**_said(away), latency_ms=None, version=None, migration=None)
    findings: list[Finding] = []
    if known.latency_ms > SLOW_MS:
        findings.append(_slow("PostgreSQL"))
    if known.migration != known.newest_migration:
        message = (
            f"The database is at migration {known.migration or 'none'}; "
            f"this release has {known.newest_migration}."
        )
        findings.append(Finding("warning", "other_migration", message))
    return DatabaseHealth(
        **_said(*findings),
        latency_ms=known.latency_ms,
        version=known.version,
        migration=known.migration,
    )


def _redis(latency_ms: float | None) -> RedisHealth:
    findings: list[Finding] = []
    if latency_ms is None:
        message = "Redis did not answer in time. Turns run on; live previews and wakes are slower."
        findings.append(Finding("error", "unreachable", message))
    elif latency_ms > SLOW_MS:
        findings.append(_slow("Redis"))
    return RedisHealth(**_said(*findings), latency_ms=latency_ms)


def _slow(what: str) -> Finding:
    return Finding("warning", "slow", f"{what} took more than {SLOW_MS / 1000:g} s to answer.")


# --- processes


def _processes(facts: Facts, kind: ProcessKind) -> ProcessesHealth:
    if facts.processes is None:
        return ProcessesHealth(**_said(_UNKNOWN), items=[])
    everybody = [process for process in facts.processes if process.live]
    shown = [process for process in facts.processes if process.kind == kind and _recent(process)]
    live = [process for process in everybody if process.kind == kind]
    findings = [*_missing(kind, live), *_versions(everybody)]
    if kind == "worker":
        findings += _full(live, facts.queue)
    items = [_process(process, facts.key_ids or frozenset()) for process in shown]
    counted: list[Status] = [item.status for item in items if item.left_at is None]
    return ProcessesHealth(**_said(*findings, counted=counted), items=items)


def _recent(process: ProcessFacts) -> bool:
    gone_s = process.beat_age_s if process.left_at is None else process.left_age_s
    return gone_s <= FORGOTTEN_S


def _missing(kind: ProcessKind, live: Sequence[ProcessFacts]) -> Iterable[Finding]:
    if not live:
        yield Finding("error", f"no_{kind}", f"No {kind} process is alive.")


def _versions(live: Sequence[ProcessFacts]) -> Iterable[Finding]:
    versions = sorted({process.version for process in live})
    if len(versions) > 1:
        message = f"Processes of different releases run: {', '.join(versions)}."
        yield Finding("warning", "versions_differ", message)


def _full(live: Sequence[ProcessFacts], queue: QueueFacts | None) -> Iterable[Finding]:
    full = bool(live) and all(process.running >= process.capacity for process in live)
    if full and queue is not None and queue.oldest_pending_s > WAITS_S:
        message = "Every worker is full, and turns wait for a free place."
        yield Finding("warning", "all_full", message)


def _process(process: ProcessFacts, key_ids: frozenset[str]) -> ProcessHealth:
    findings: list[Finding] = []
    missing = sorted(key_ids - process.key_ids)
    if process.left_at is not None:
        findings.append(Finding("warning", "left", "It said goodbye."))
    elif not process.live:
        message = f"No sign of life for more than {LOST_S:g} s."
        findings.append(Finding("error", "lost", message))
    elif missing:
        message = f"It lacks encryption keys that secrets need: {', '.join(missing)}."
        findings.append(Finding("warning", "missing_key", message))
    return ProcessHealth(
        **_said(*findings),
        id=process.id,
        version=process.version,
        started_at=process.started_at,
        beat_at=process.beat_at,
        left_at=process.left_at,
        capacity=process.capacity,
        running=process.running,
    )


# --- MCP servers


def _servers(known: Sequence[ServerFacts] | None) -> ServersHealth:
    if known is None:
        return ServersHealth(**_said(_UNKNOWN), items=[])
    items = [_server(server) for server in known]
    return ServersHealth(**_said(counted=[item.status for item in items]), items=items)


def _server(server: ServerFacts) -> ServerHealth:
    failed = server.outcome not in {None, "connected"}
    return ServerHealth(
        **_said(*_server_findings(server)),
        id=server.id,
        slug=server.slug,
        last_connected_at=server.last_connected_at,
        last_error=(server.error_code or server.outcome) if failed else None,
        tools=server.tools,
    )


def _server_findings(server: ServerFacts) -> Iterable[Finding]:
    for why in server.unreadable:
        yield Finding("error", "unreadable_secret", why)
    if server.down:
        yield Finding("error", "unreachable", "It did not answer; it is left alone for a while.")
    match server.outcome:
        case "connected":
            pass
        case None:
            if not server.unreadable and not server.down:
                yield Finding("healthy", "not_used_yet", "Nobody has connected to it yet.")
        case "unauthorized" if server.of_user:
            yield Finding("warning", "unauthorized", "It refused the last user's credentials.")
        case "unauthorized":
            yield Finding("error", "unauthorized", "It refused its credentials.")
        case outcome:
            told = f" ({server.error_code})" if server.error_code else ""
            yield Finding("error", outcome, f"The last attempt to connect failed{told}.")


# --- queue and providers


def _queue(known: QueueFacts | None) -> QueueHealth:
    if known is None:
        return QueueHealth(
            **_said(_UNKNOWN), pending=None, oldest_pending_s=None, running=None, parked=None
        )
    findings: list[Finding] = []
    if known.paused:
        message = "Workers claim no turns: an administrator paused them."
        findings.append(Finding("warning", "claims_paused", message))
    return QueueHealth(
        **_said(*findings),
        pending=known.pending,
        oldest_pending_s=known.oldest_pending_s,
        running=known.running,
        parked=known.parked,
    )


def _providers(known: Sequence[ProviderFacts] | None) -> ProvidersHealth:
    if known is None:
        return ProvidersHealth(**_said(_UNKNOWN), items=[])
    items = [_provider(provider) for provider in known]
    return ProvidersHealth(**_said(counted=[item.status for item in items]), items=items)


def _provider(provider: ProviderFacts) -> ProviderHealth:
    findings: list[Finding] = []
    if provider.unreadable is not None:
        findings.append(Finding("error", "unreadable_secret", provider.unreadable))
    elif provider.lacks_key:
        findings.append(Finding("error", "missing_api_key", "It has no API key."))
    return ProviderHealth(**_said(*findings), id=provider.id, display_name=provider.display_name)


# --- what all parts share


def _said(*findings: Finding, counted: Sequence[Status] = ()) -> dict[str, Any]:
    """`status` and `reasons`; `counted` are the items whose state is also the section's."""
    return {
        "status": _worst([*counted, *(finding.status for finding in findings)]),
        "reasons": [HealthReason(code=code, message=message) for _, code, message in findings],
    }


def _worst(statuses: Iterable[Status]) -> Status:
    worst: Status = "healthy"
    for status in statuses:
        worst = max(worst, status, key=_BADNESS.__getitem__)
    return worst
