"""`python -m penstock.scaler replay trace.csv`: what the scaler would have decided on a demand
trace, step by step, in virtual time.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock.scaler.pools.planner import Decision, PoolPlanner
from penstock.scaler.replay.plot import svg
from penstock.scaler.replay.trace_file import BadTrace, Columns, read
from penstock.scaler.samples import Sample
from penstock.scaler.settings import PoolConfig, ScalingSection
from penstock.service.program import USAGE_ERROR
from penstock.service.settings import BadConfig, load_section
from pydantic import ValidationError

MOST_TICKS = 60
TICK_S = 15.0
"""A serving scaler decides every few seconds; within a step of a trace it may go on as long as its
rates hold it.
"""


@dataclass(frozen=True)
class Summary:
    """What a replay came to.

    Shares of steps and of work; capacity counts from `lead` steps after its decision.
    """

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
        samples, interval_s = read(asked.trace, Columns(asked.time, asked.work, asked.bin_s))
        config = _config(asked, max(sample.work for sample in samples) / interval_s, interval_s)
        decisions, summary = replay(PoolPlanner(config), samples)
        if asked.plot is not None:
            asked.plot.write_text(
                _plot(asked.trace.name, config, samples, decisions), encoding="utf-8"
            )
    except (BadTrace, BadConfig, OSError) as error:
        sys.stderr.write(f"penstock scaler replay: {error}" + "\n")
        return USAGE_ERROR
    if asked.json:
        for decision in decisions:
            sys.stdout.write(json.dumps(decision.as_dict()) + "\n")
    else:
        for decision in _changes(decisions):
            sys.stdout.write(_line(decision) + "\n")
    sys.stdout.write(
        json.dumps({"trace": asked.trace.name, "capacity": config.capacity, **summary.__dict__})
        + "\n"
    )
    return 0


def _config(asked: argparse.Namespace, peak: float, interval_s: float) -> PoolConfig:
    """The pool of the configuration file, or one as the options say; its interval is that of the
    trace.

    Raises:
        BadConfig: an option or the file is wrong, or has no such pool.
    """
    if asked.config is None:
        found: dict[str, object] = {
            "name": asked.trace.stem,
            "least": asked.least,
            "most": asked.most,
            "level": asked.level,
            "capacity": asked.capacity,
            "utilisation": asked.utilisation,
            "seed_lead_s": asked.lead_s if asked.lead_s else interval_s,
            "start_cost_s": asked.start_cost_s,
            "under": asked.under,
            "over": asked.over,
        }
    else:
        pools = {
            pool.name: pool for pool in load_section(asked.config, "scaling", ScalingSection).pools
        }
        if not asked.pool and len(pools) == 1:
            asked.pool = next(iter(pools))
        if asked.pool not in pools:
            raise BadConfig(
                [
                    (
                        f"--pool: there is no pool {asked.pool!r}; the file has "
                        f"{', '.join(pools) or 'none'}"
                    )
                ]
            )
        found = pools[asked.pool].model_dump()
    found |= {"interval_s": interval_s, "stale_s": 10 * interval_s}
    try:
        config = PoolConfig.model_validate(found)
    except ValidationError as error:
        raise BadConfig([_problem(dict(item)) for item in error.errors()]) from None
    # By default the most instances just do the peak.
    return (
        config
        if config.capacity
        else config.model_copy(update={"capacity": peak / config.most or 1.0})
    )


def _problem(item: dict[str, Any]) -> str:
    """One bad option, by its name."""
    name = str(item["loc"][0]).replace("seed_lead_s", "lead_s") if item["loc"] else ""
    return (f"--{name.replace('_', '-')}: " if name else "") + str(item["msg"]).removeprefix(
        "Value error, "
    )


def _plot(title: str, config: PoolConfig, samples: list[Sample], decisions: list[Decision]) -> str:
    lead = round(decisions[-1].horizon_s / config.interval_s)
    pairs = list(_shifted(samples, decisions, lead))
    demand = [sample.work / config.interval_s for sample, _ in pairs]
    return svg(
        title,
        [sample.start_s for sample, _ in pairs],
        demand,
        [one.wanted * config.capacity for _, one in pairs],
    )


def replay(pool: PoolPlanner, samples: list[Sample]) -> tuple[list[Decision], Summary]:
    """Feed the samples to a pool and obey its decisions, which take effect after the horizon; gaps
    count as no work.
    """
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
        decision = _settle(pool, current, now)
        decisions.append(decision)
        current, fallen = decision.wanted, fallen + pool.fallen_back
    return decisions, _summary(pool, samples, decisions, fallen)


def _settle(pool: PoolPlanner, current: int, now_s: float) -> Decision:
    """Decide again and again within the step, as a serving scaler does; the last decision, against
    what was before the step.
    """
    first = decision = pool.decide(current, current, now_s)
    for number in range(1, min(MOST_TICKS, int(pool.config.interval_s // TICK_S))):
        settled = decision.wanted == decision.current and "held" not in decision.reason
        if settled:
            break
        decision = pool.decide(decision.wanted, decision.wanted, now_s + number * TICK_S)
    reason = decision.reason if decision.wanted != first.wanted else first.reason
    return replace(decision, current=current, made_s=first.made_s, reason=reason)


def _summary(
    pool: PoolPlanner, samples: list[Sample], decisions: list[Decision], fallen: int
) -> Summary:
    ahead = pool.ahead
    each = pool.given_capacity * pool.config.interval_s
    pairs = [
        (sample.work, decision.wanted * each)
        for sample, decision in _shifted(samples, decisions, ahead)
    ]
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


def _shifted(
    samples: list[Sample], decisions: list[Decision], ahead: int
) -> Iterator[tuple[Sample, Decision]]:
    """Each sample with the decision that was made `ahead` intervals before it."""
    yield from zip(samples[ahead:], decisions, strict=False)


def _changes(decisions: list[Decision]) -> Iterator[Decision]:
    return (decision for decision in decisions if decision.wanted != decision.current)


def _line(decision: Decision) -> str:
    moment = datetime.datetime.fromtimestamp(decision.made_s, datetime.UTC).isoformat(
        timespec="seconds"
    )
    return (
        f"{moment} {decision.current} -> {decision.wanted} ({decision.reason}; "
        f"{decision.level:g} quantile {decision.forecast:.4g}, "
        f"horizon {decision.horizon_s:g} s, present demand needs {decision.floor})"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m penstock.scaler replay",
        description="Replay a demand trace: a CSV of times (Unix seconds or ISO 8601), work, and "
        "optionally backlog.",
        epilog="The last line is a JSON object with shortfall, over-provision and coverage.",
    )
    parser.add_argument("trace", type=Path, help="the CSV file")
    parser.add_argument(
        "--time",
        default="",
        metavar="COLUMN",
        help="column of the times, by its name in the head (default: the first)",
    )
    parser.add_argument(
        "--work", default="", metavar="COLUMN", help="column of the work (default: the second)"
    )
    parser.add_argument(
        "--bin-s",
        type=_positive,
        default=0.0,
        help="add up lines within so many seconds, as for one line a request",
    )
    parser.add_argument(
        "--config",
        type=Path,
        help="replay a pool of this configuration file, instead of the options below",
    )
    parser.add_argument("--pool", default="", help="which pool of the file (default: the only one)")
    parser.add_argument(
        "--level", type=float, default=0.95, help="quantile of demand to provide for (default 0.95)"
    )
    parser.add_argument(
        "--under",
        type=float,
        help="what a unit of work too little costs; with --over it gives the level",
    )
    parser.add_argument("--over", type=float, help="what a unit of work too much costs")
    parser.add_argument(
        "--capacity",
        type=float,
        default=0.0,
        help="work of one instance a second (default: peak / most)",
    )
    parser.add_argument(
        "--utilisation",
        type=float,
        default=1.0,
        help="share of the capacity to plan with (default 1)",
    )
    parser.add_argument(
        "--lead-s",
        type=float,
        default=0.0,
        help="seconds from decision to ready (default: one step)",
    )
    parser.add_argument(
        "--start-cost-s", type=float, default=0.0, help="what a start costs, in instance seconds"
    )
    parser.add_argument("--least", type=int, default=1, help="least instances (default 1)")
    parser.add_argument("--most", type=int, default=100, help="most instances (default 100)")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.svg", help="draw demand and the capacity for it"
    )
    parser.add_argument(
        "--json", action="store_true", help="print every decision as a JSON line, not only changes"
    )
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be more than 0, got {text}")
    return value
