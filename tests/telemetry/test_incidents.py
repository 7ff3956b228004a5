"""Incidents: which findings are merged, and what a merged incident names."""

from __future__ import annotations

from penstock.telemetry.detection.incidents import (
    MAX_CONTRIBUTIONS,
    Contribution,
    Finding,
    IncidentTracker,
)

SLOW = Contribution("latency_ms", 1.0, 33.0, 24.0)
FAILING = Contribution("error_rate", 1.0, 0.5, 0.01)


def finding(
    at_s: float,
    severity: float = 5.0,
    *contributions: Contribution,
    service: str = "router",
    subject: str = "a",
    text: str = "slow",
    trace_ids: tuple[str, ...] = (),
) -> Finding:
    return Finding(
        service, subject, "requests", at_s, severity, text, contributions, trace_ids=trace_ids
    )


def test_findings_of_a_service_within_five_minutes_are_one_incident() -> None:
    tracker = IncidentTracker()
    first = tracker.report(finding(1000.0, text="one"))
    second = tracker.report(finding(1290.0, 7.0, text="two", trace_ids=("t",)))
    third = tracker.report(finding(1591.0))
    other = tracker.report(finding(1000.0, service="cache"))
    assert first.id == second.id
    assert (second.alerts, second.text, second.trace_ids) == (2, "two", ("t",))
    assert len({second.id, third.id, other.id}) == 3


def test_an_incident_closes_when_nothing_more_is_found() -> None:
    tracker = IncidentTracker()
    tracker.report(finding(1000.0))
    assert tracker.close_quiet(1100.0) == []
    (closed,) = tracker.close_quiet(1121.0)
    assert not closed.open
    assert tracker.open_count == 0


def test_a_new_subject_is_noticed_and_every_subject_is_named() -> None:
    tracker = IncidentTracker()
    first = tracker.report(finding(1000.0, 21.0, SLOW, subject="batcher a"))
    again = tracker.report(finding(1030.0, 21.0, SLOW, subject="batcher a"))
    other = tracker.report(finding(1060.0, 9.0, SLOW, subject="batcher b"))
    assert [row.has_new_subject for row in (first, again, other)] == [False, False, True]
    assert [(part.subject, part.feature) for part in other.contributions] == [
        ("batcher a", "latency_ms"),
        ("batcher b", "latency_ms"),
    ]


def test_contributions_of_the_worst_finding_come_first_and_each_once() -> None:
    tracker = IncidentTracker()
    tracker.report(finding(1000.0, 21.0, SLOW, subject="a"))
    tracker.report(finding(1010.0, 7.0, FAILING, subject="b"))
    last = tracker.report(finding(1020.0, 30.0, FAILING, subject="b"))
    assert [part.feature for part in last.contributions] == ["error_rate", "latency_ms"]


def test_with_too_many_contributions_every_subject_keeps_one() -> None:
    tracker = IncidentTracker()
    for number in range(3):
        parts = tuple(Contribution(f"feature {n}", 1.0, 1.0, 1.0) for n in range(6))
        last = tracker.report(finding(1000.0, 5.0 - number, *parts, subject=f"group {number}"))
    assert len(last.contributions) == MAX_CONTRIBUTIONS
    subjects = {part.subject for part in last.contributions}
    assert subjects == {"group 0", "group 1", "group 2"}
