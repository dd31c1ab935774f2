"""From what is known to the health report: a table of cases."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from chatd.core.health import (
    DatabaseFacts,
    Facts,
    HealthReport,
    PartHealth,
    ProcessFacts,
    ProviderFacts,
    QueueFacts,
    ServerFacts,
)
from chatd.core.judging import judge

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ID = UUID(int=1)


def process(kind: Any = "worker", **more: Any) -> ProcessFacts:
    values: dict[str, Any] = {"id": f"{kind}-1", "capacity": 2, "key_ids": frozenset({"k1"})}
    values |= more
    return ProcessFacts(kind=kind, version="1", started_at=NOW, beat_at=NOW, **values)


def newer(one: ProcessFacts) -> ProcessFacts:
    return replace(one, id=f"{one.kind}-2", version="2")


def server(**more: Any) -> ServerFacts:
    values: dict[str, Any] = {"outcome": "connected", **more}
    return ServerFacts(id=ID, slug="demo", **values)


FULL = process(running=2)
LATE = QueueFacts(3, 10.5, 2, 0)
LEFT = process(left_at=NOW, left_age_s=60, beat_age_s=60)
LOST = process(beat_age_s=15.5)

WELL = Facts(
    checked_at=NOW,
    database=DatabaseFacts(1.5, "18", "0003", "0003"),
    redis_ms=0.5,
    processes=[process(), process("api")],
    servers=[server()],
    queue=QueueFacts(0, 0, 0, 0),
    providers=[ProviderFacts(ID, "openai")],
    key_ids=frozenset({"k1"}),
)


def facts(**changes: Any) -> Facts:
    return replace(WELL, **changes)


def workers(*processes: ProcessFacts, **changes: Any) -> Facts:
    return facts(processes=[process("api"), *processes], **changes)


def codes(part: PartHealth) -> list[str]:
    return [reason.code for reason in part.reasons]


def told(report: HealthReport, section: str) -> tuple[str, list[str], list[tuple[str, list[str]]]]:
    part = getattr(report, section)
    items = [(item.status, codes(item)) for item in getattr(part, "items", [])]
    return part.status, codes(part), items


FINE: tuple[str, list[str]] = ("healthy", [])


CASES: list[tuple[Facts, str, Any]] = [
    (facts(database=None), "database", ("error", ["unreachable"], [])),
    (
        facts(database=DatabaseFacts(1001, "18", "0002", "0003")),
        "database",
        ("warning", ["slow", "other_migration"], []),
    ),
    (facts(redis_ms=None), "redis", ("error", ["unreachable"], [])),
    (facts(redis_ms=1001), "redis", ("warning", ["slow"], [])),
    (facts(processes=None), "workers", ("error", ["unknown"], [])),
    (facts(processes=None), "apis", ("error", ["unknown"], [])),
    (facts(servers=None), "mcp_servers", ("error", ["unknown"], [])),
    (facts(queue=None), "queue", ("error", ["unknown"], [])),
    (facts(providers=None), "providers", ("error", ["unknown"], [])),
    (facts(queue=QueueFacts(0, 0, 0, 0, True)), "queue", ("warning", ["claims_paused"], [])),
    # Processes.
    (workers(), "workers", ("error", ["no_worker"], [])),
    (workers(LOST), "workers", ("error", ["no_worker"], [("error", ["lost"])])),
    (workers(process(), LOST), "workers", ("error", [], [FINE, ("error", ["lost"])])),
    (workers(process(beat_age_s=15)), "workers", ("healthy", [], [FINE])),
    (workers(process(), replace(LOST, beat_age_s=3601)), "workers", ("healthy", [], [FINE])),
    (workers(LEFT), "workers", ("error", ["no_worker"], [("warning", ["left"])])),
    (workers(process(), LEFT), "workers", ("healthy", [], [FINE, ("warning", ["left"])])),
    (workers(process(), replace(LEFT, left_age_s=3601)), "workers", ("healthy", [], [FINE])),
    (
        workers(process(), newer(process())),
        "workers",
        ("warning", ["versions_differ"], [FINE, FINE]),
    ),
    (workers(process(), newer(process())), "apis", ("warning", ["versions_differ"], [FINE])),
    (workers(process(), newer(LEFT)), "apis", ("healthy", [], [FINE])),
    (workers(FULL, queue=LATE), "workers", ("warning", ["all_full"], [FINE])),
    (
        workers(FULL, replace(process(), id="worker-2"), queue=LATE),
        "workers",
        ("healthy", [], [FINE, FINE]),
    ),
    (workers(FULL, queue=replace(LATE, oldest_pending_s=10)), "workers", (*FINE, [FINE])),
    (workers(FULL, queue=None), "workers", (*FINE, [FINE])),
    (
        facts(key_ids=frozenset({"k1", "k2"})),
        "workers",
        ("warning", [], [("warning", ["missing_key"])]),
    ),
    (facts(key_ids=None), "workers", (*FINE, [FINE])),
    (workers(LEFT, process(), key_ids=frozenset({"k1"})), "apis", (*FINE, [FINE])),
    (facts(processes=[process()]), "apis", ("error", ["no_api"], [])),
    # Providers.
    (
        facts(providers=[ProviderFacts(ID, "x", True)]),
        "providers",
        ("error", [], [("error", ["missing_api_key"])]),
    ),
    (
        facts(providers=[ProviderFacts(ID, "x", False, "no key")]),
        "providers",
        ("error", [], [("error", ["unreadable_secret"])]),
    ),
]


def test_all_is_well() -> None:
    report = judge(WELL)
    assert report.status == "healthy"
    assert [part.status for _, part in report if isinstance(part, PartHealth)] == ["healthy"] * 8


@pytest.mark.parametrize(("known", "section", "verdict"), CASES)
def test_a_part_is_as_bad_as_its_worst_reason(known: Facts, section: str, verdict: Any) -> None:
    report = judge(known)
    assert told(report, section) == verdict
    every = {part.status for _, part in report if isinstance(part, PartHealth)}
    assert report.status == next(bad for bad in ("error", "warning", "healthy") if bad in every)


@pytest.mark.parametrize(
    ("known", "status", "reasons", "last_error"),
    [
        (server(), "healthy", [], None),
        (server(outcome=None), "healthy", ["not_used_yet"], None),
        (server(outcome="timeout"), "error", ["timeout"], "timeout"),
        (server(outcome="refused", error_code="dns"), "error", ["refused"], "dns"),
        (server(outcome="failed", error_code="protocol"), "error", ["failed"], "protocol"),
        (server(outcome="unauthorized"), "error", ["unauthorized"], "unauthorized"),
        (server(outcome="unauthorized", of_user=True), "warning", ["unauthorized"], "unauthorized"),
        (server(down=True), "error", ["unreachable"], None),
        (server(outcome=None, down=True), "error", ["unreachable"], None),
        (server(unreadable=("no key",)), "error", ["unreadable_secret"], None),
        (server(outcome=None, unreadable=("no key",)), "error", ["unreadable_secret"], None),
    ],
)
def test_a_server_is_as_its_newest_attempt_and_its_secrets(
    known: ServerFacts, status: str, reasons: list[str], last_error: str | None
) -> None:
    section = judge(facts(servers=[known])).mcp_servers
    (item,) = section.items
    assert (item.status, codes(item), item.last_error) == (status, reasons, last_error)
    assert section.status == status


def test_no_list_is_null_when_nothing_is_known() -> None:
    blind = Facts(
        checked_at=NOW,
        database=None,
        redis_ms=None,
        processes=None,
        servers=None,
        queue=None,
        providers=None,
        key_ids=None,
    )
    report = judge(blind)
    assert report.status == "error"
    for _, part in report:
        if isinstance(part, PartHealth):
            assert part.reasons is not None
            assert getattr(part, "items", []) == []
