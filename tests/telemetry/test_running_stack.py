"""What the running stack's figures count as found and as a false alert; the run itself is the
benchmark's.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.bench.harness.json_lines import append
from penstock.bench.telemetry.stack_campaign import logged, runs_in, summed
from penstock.bench.telemetry.stack_findings import InjectedFault, StackRun


def incident(
    name: str, opened_s: float, last_s: float, *features: str, model: str = "bench-failing"
) -> pb.Incident:
    blamed = [
        pb.Contribution(feature=feature, subject=f"batcher {model} short") for feature in features
    ]
    return pb.Incident(
        id=name,
        state=pb.INCIDENT_STATE_OPEN,
        opened_unix_ms=int(opened_s * 1e3),
        last_unix_ms=int(last_s * 1e3),
        contributions=blamed,
    )


FAULT = InjectedFault("error burst", 1000.0, 1120.0)


def test_a_fault_is_found_when_an_incident_comes_to_blame_what_it_changes() -> None:
    late, grown = (
        incident("a", 1030.0, 1030.0, "error_rate"),
        incident("b", 900.0, 1010.0, "latency_ms", "error_rate"),
    )
    assert FAULT.detection_delay_s([late]) == 30.0
    assert FAULT.detection_delay_s([incident("b", 900.0, 990.0, "latency_ms"), grown, late]) == 10.0


def test_another_feature_another_time_or_an_older_blame_is_no_finding() -> None:
    assert FAULT.detection_delay_s([]) is None
    assert FAULT.detection_delay_s([incident("a", 1030.0, 1030.0, "latency_ms")]) is None
    assert FAULT.detection_delay_s([incident("a", 1130.0, 1130.0, "error_rate")]) is None
    before, after = (
        incident("a", 900.0, 990.0, "error_rate"),
        incident("a", 900.0, 1030.0, "error_rate"),
    )
    assert FAULT.detection_delay_s([before, after]) is None
    assert (
        FAULT.detection_delay_s([incident("a", 1030.0, 1030.0, "error_rate", model="bench-slow")])
        is None
    )
    closed = incident("a", 900.0, 990.0, "error_rate")
    closed.state = pb.INCIDENT_STATE_CLOSED
    assert FAULT.detection_delay_s([before, closed, after]) == 30.0


def test_an_open_incident_that_comes_to_blame_another_model_has_found_its_fault() -> None:
    before = incident("b", 900.0, 990.0, "error_rate", model="bench-slow")
    grown = incident("b", 900.0, 1010.0, "error_rate", model="bench-slow")
    grown.contributions.append(incident("", 0.0, 0.0, "error_rate").contributions[0])
    assert FAULT.detection_delay_s([before, grown]) == 10.0


def test_only_incidents_outside_faults_and_their_aftermath_are_false_and_each_counts_once() -> None:
    moments = (900.0, 1000.0, 1150.0, 1181.0, 1400.0)
    updates = [incident(str(at), at, at, "latency_ms") for at in moments]
    watched = StackRun([FAULT], [*updates, *updates], 720.0, 100, 0.0, 60.0)
    assert [row.id for row in watched.false_alerts()] == ["900.0", "1181.0", "1400.0"]
    # then only the 540 s outside of the fault and its aftermath count, of five services
    assert watched.calm_service_hours == 0.75


def test_the_runs_of_the_log_are_summed(tmp_path: Path) -> None:
    log = tmp_path / "runs.jsonl"
    assert summed(runs_in(log)).figures == {}
    found = StackRun([FAULT], [incident("a", 1030.0, 1030.0, "error_rate")], 720.0, 100, 5.0, 60.0)
    missed = StackRun([FAULT], [incident("a", 900.0, 900.0, "x")], 720.0, 200, 7.0, 60.0, 1.0)
    for seed, run in enumerate((found, missed)):
        append(log, asdict(logged(run, seed)))
    part = summed(runs_in(log))
    assert part.figures["stack_fault_recall"] == 0.5
    assert part.figures["stack_detection_delay_s"] == 30.0
    assert part.figures["stack_false_alerts_per_service_hour"] == 1 / 1.5
    assert part.figures["stack_requests"] == 300
    assert part.intervals.keys() == {
        "stack_fault_recall",
        "stack_false_alerts_per_service_hour",
    }
