"""`python -m penstock.scaler replay trace.csv`: what the scaler would have decided on a demand trace, step by step, in virtual time."""

from __future__ import annotations

import argparse
import csv
import datetime
import itertools
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.core.program import USAGE_ERROR
from penstock.scaler.config import PoolConfig
from penstock.scaler.pool import Decision, Pool, Sample
from pydantic import ValidationError

LEAST_STEPS = 3


class BadTrace(Exception):
    """The trace cannot be read; the text names the line."""


@dataclass(frozen=True)
class Summary:
    """What a replay came to. Shares of steps and of work; capacity counts from `lead` steps after its decision."""

    steps: int
    short_share: float
    over_provision: float
    mean_instances: float
    peak_instances: int
    coverage: float
    fallen_back_share: float


def main(arguments: list[str]) -> int:
    """Run with the words after `replay`; returns the exit status."""
    asked = _parser().parse_args(arguments)
    try:
        samples, interval_s = read(asked.trace)
        peak = max(sample.work for sample in samples) / interval_s
        capacity = asked.capacity or peak / asked.most or 1.0
        config = PoolConfig(
            name=asked.trace.stem, least=asked.least, most=asked.most, interval_s=interval_s, level=asked.level,
            capacity=capacity, utilisation=asked.utilisation, seed_lead_s=asked.lead_s or interval_s,
            start_cost_s=asked.start_cost_s, down_every_s=0.0, stale_s=10 * interval_s,
        )  # fmt: skip
    except (BadTrace, ValidationError) as error:
        sys.stderr.write(f"penstock scaler replay: {error}" + "\n")
        return USAGE_ERROR
    pool = Pool(config)
    decisions, summary = replay(pool, samples)
    if asked.json:
        for decision in decisions:
            sys.stdout.write(json.dumps(decision.as_dict()) + "\n")
    else:
        for decision in _changes(decisions):
            sys.stdout.write(_line(decision) + "\n")
    sys.stdout.write(json.dumps({"trace": asked.trace.name, "capacity": capacity, **summary.__dict__}) + "\n")
    return 0


def read(path: Path) -> tuple[list[Sample], float]:
    """Samples of a CSV with a head: first column Unix seconds or ISO 8601 time, second work, third (optional) backlog.

    Raises:
        BadTrace: the file is missing, too short, out of order, or a line is not two numbers.
    """
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))[1:]
    except (OSError, UnicodeDecodeError) as error:
        raise BadTrace(f"{path}: cannot be read ({error})") from None
    samples = [_sample(row, number) for number, row in enumerate(rows, start=2) if row]
    if len(samples) < LEAST_STEPS:
        raise BadTrace(f"{path}: needs a head and at least {LEAST_STEPS} lines")
    steps = [later.start_s - sooner.start_s for sooner, later in itertools.pairwise(samples)]
    interval_s = sorted(steps)[len(steps) // 2]
    if interval_s <= 0:
        raise BadTrace(f"{path}: times do not go up")
    return samples, interval_s


def _sample(row: list[str], number: int) -> Sample:
    try:
        work, backlog = float(row[1]), float(row[2]) if len(row) > 2 and row[2] else 0.0
        start_s = _unix_s(row[0])
    except (IndexError, ValueError):
        raise BadTrace(f"line {number}: needs a time and a number, got {','.join(row)!r}") from None
    if not (math.isfinite(work) and work >= 0 and math.isfinite(backlog) and backlog >= 0):
        raise BadTrace(f"line {number}: work and backlog must be finite and not negative")
    return Sample(start_s, work, backlog)


def _unix_s(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = datetime.datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def replay(pool: Pool, samples: list[Sample]) -> tuple[list[Decision], Summary]:
    """Feed the samples to a pool and obey its decisions, which take effect after the horizon; gaps count as no work."""
    decisions: list[Decision] = []
    interval_s = pool.config.interval_s
    current, fallen = max(pool.config.least, 1), 0
    for sample in samples:
        now = sample.start_s + interval_s
        pool.take([sample], now)
        if pool.rebuild_due:
            pool.install(pool.rebuild())
        for forecaster in pool.due():
            forecaster.adopt(forecaster.train())
        decision = pool.decide(current, current, now)
        decisions.append(decision)
        current, fallen = decision.wanted, fallen + pool.fallen_back
    return decisions, _summary(pool, samples, decisions, fallen)


def _summary(pool: Pool, samples: list[Sample], decisions: list[Decision], fallen: int) -> Summary:
    ahead = pool.ahead
    each = pool.given_capacity * pool.config.interval_s
    pairs = [(sample.work, decision.wanted * each) for sample, decision in _shifted(samples, decisions, ahead)]
    work = sum(pair[0] for pair in pairs)
    return Summary(
        steps=len(samples),
        short_share=sum(need > have for need, have in pairs) / max(1, len(pairs)),
        over_provision=sum(max(0.0, have - need) for need, have in pairs) / work if work else 0.0,
        mean_instances=sum(decision.wanted for decision in decisions) / len(decisions),
        peak_instances=max(decision.wanted for decision in decisions),
        coverage=pool.coverage(),
        fallen_back_share=fallen / len(samples),
    )


def _shifted(samples: list[Sample], decisions: list[Decision], ahead: int) -> Iterator[tuple[Sample, Decision]]:
    """Each sample with the decision that was made `ahead` intervals before it."""
    yield from zip(samples[ahead:], decisions, strict=False)


def _changes(decisions: list[Decision]) -> Iterator[Decision]:
    return (decision for decision in decisions if decision.wanted != decision.current)


def _line(decision: Decision) -> str:
    moment = datetime.datetime.fromtimestamp(decision.made_s, datetime.UTC).isoformat(timespec="seconds")
    return (
        f"{moment} {decision.current} -> {decision.wanted} ({decision.reason}; {decision.level:g} quantile {decision.forecast:.4g}, "
        f"horizon {decision.horizon_s:g} s, present demand needs {decision.floor})"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m penstock.scaler replay",
        description="Replay a demand trace: CSV with a head; columns time (Unix seconds or ISO 8601), work, optionally backlog.",
        epilog="The last line is a JSON object with shortfall, over-provision and coverage.",
    )
    parser.add_argument("trace", type=Path, help="the CSV file")
    parser.add_argument("--level", type=float, default=0.95, help="quantile of demand to provide for (default 0.95)")
    parser.add_argument(
        "--capacity", type=float, default=0.0, help="work of one instance a second (default: peak / most)"
    )
    parser.add_argument("--utilisation", type=float, default=1.0, help="share of the capacity to plan with (default 1)")
    parser.add_argument("--lead-s", type=float, default=0.0, help="seconds from decision to ready (default: one step)")
    parser.add_argument("--start-cost-s", type=float, default=0.0, help="what a start costs, in instance seconds")
    parser.add_argument("--least", type=int, default=1, help="least instances (default 1)")
    parser.add_argument("--most", type=int, default=100, help="most instances (default 100)")
    parser.add_argument("--json", action="store_true", help="print every decision as a JSON line, not only changes")
    return parser
