"""`python -m penstock.bench.telemetry.stack_campaign`: run a stack with faults for 22 minutes, and
append what was found to a log, whose lines the benchmark `telemetry` sums.

Nothing else should run on the machine: other work makes the stack slower for real.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from penstock.bench.harness import json_lines
from penstock.bench.harness.checkout import commit_of
from penstock.bench.harness.intervals import of_rate, of_share
from penstock.bench.harness.parts import Part
from penstock.bench.harness.processes import home_folder
from penstock.bench.harness.progress import say
from penstock.bench.harness.report import Number, Table
from penstock.bench.telemetry.stack import Schedule, run_with_faults
from penstock.bench.telemetry.stack_findings import StackRun
from penstock.service.default_models import missing_model

LOG = Path("docs/benchmarks/telemetry-stacks.jsonl")
FIRST_SEED = 101


@dataclass(frozen=True)
class LoggedRun:
    """One run of the campaign.

    Attributes:
        seed: of its requests.
        at: when it ended.
        commit: that was checked out.
        minutes: its length.
        requests: that were sent.
        delays_s: seconds until each kind of fault was found; None where it was not.
        false_alerts: what the incidents say that no fault explains.
        calm_service_hours: in which such an incident counts.
        metric_streams: that were watched.
        host_load: mean load average of the machine.
    """

    seed: int
    at: str
    commit: str
    minutes: float
    requests: int
    delays_s: Mapping[str, float | None]
    false_alerts: Sequence[str]
    calm_service_hours: float
    metric_streams: float
    host_load: float


def logged(run: StackRun, seed: int) -> LoggedRun:
    """The line of a run that has just ended."""
    alerts = [f"{row.service}: {row.summary}" for row in run.false_alerts()]
    return LoggedRun(
        seed,
        f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        commit_of(Path()),
        run.seconds / 60.0,
        run.requests,
        run.delays_s(),
        alerts,
        run.calm_service_hours,
        run.metric_streams,
        run.host_load,
    )


def runs_in(log: Path) -> list[LoggedRun]:
    """The runs of a log, the oldest first; none where there is no log."""
    return json_lines.records(log, LoggedRun)


def summed(runs: Sequence[LoggedRun]) -> Part:
    """The figures over all runs; nothing of none."""
    if not runs:
        return Part({})
    delays = [delay for run in runs for delay in run.delays_s.values()]
    found = [delay for delay in delays if delay is not None]
    false_alerts = sum(len(run.false_alerts) for run in runs)
    hours = sum(run.calm_service_hours for run in runs)
    figures: dict[str, Number] = {
        "stack_fault_recall": len(found) / len(delays),
        "stack_detection_delay_s": statistics.median(found) if found else 0.0,
        "stack_false_alerts_per_service_hour": false_alerts / hours,
        "stack_runs": len(runs),
        "stack_minutes": sum(run.minutes for run in runs),
        "stack_requests": sum(run.requests for run in runs),
        "stack_metric_streams": max(run.metric_streams for run in runs),
        "stack_host_load": statistics.fmean(run.host_load for run in runs),
    }
    intervals = {
        "stack_fault_recall": of_share(len(found), len(delays), "faults"),
        "stack_false_alerts_per_service_hour": of_rate(false_alerts, hours, "calm service hours"),
    }
    return Part(figures, tables=_tables(runs), intervals=intervals)


def _tables(runs: Sequence[LoggedRun]) -> tuple[Table, ...]:
    kinds = tuple(runs[0].delays_s)
    rows = tuple(
        (run.at, run.commit, *(_said(run.delays_s[kind]) for kind in kinds)) for run in runs
    )
    found = Table("Seconds until found in running stacks", ("run", "commit", *kinds), rows)
    alerts = tuple((run.at, alert) for run in runs for alert in run.false_alerts)
    title = "Incidents of running stacks that no fault explains"
    return (found, *((Table(title, ("run", "incident"), alerts),) if alerts else ()))


def _said(delay_s: float | None) -> str:
    return "not found" if delay_s is None else f"{delay_s:.1f}"


def main() -> int:
    """Run once and append a line to the log."""
    parser = argparse.ArgumentParser(prog="python -m penstock.bench.telemetry.stack_campaign")
    parser.add_argument("--log", type=Path, default=LOG)
    given = parser.parse_args()
    if problem := missing_model(home_folder()):
        parser.error(problem)
    schedule = Schedule()
    seed = FIRST_SEED + len(runs_in(given.log))
    say(f"a running stack with faults, for {schedule.total_s / 60:.0f} minutes, seed {seed}")
    line = logged(run_with_faults(home_folder() / "models", schedule, seed), seed)
    json_lines.append(given.log, asdict(line))
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
