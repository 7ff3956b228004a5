"""The command `python -m penstock.scaler replay trace.csv`."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from penstock.scaler.forecast.features import Sample
from penstock.scaler.pool_settings import PoolConfig, ScalingSection
from penstock.scaler.pools.planner import Decision, PoolPlanner
from penstock.scaler.replay.options import parse_options
from penstock.scaler.replay.plot import svg
from penstock.scaler.replay.replay import in_effect, replay
from penstock.scaler.replay.trace_file import BadTrace, Columns, read_trace
from penstock.service.program import USAGE_ERROR
from penstock.service.settings import BadConfig, load_section
from pydantic import ValidationError

STALE_STEPS = 10
OPTIONS_OF_FIELDS = {"initial_lead_time_s": "lead_time_s"}
"""Options that are not named as the pool's field."""


def main(arguments: Sequence[str]) -> int:
    """Run the command with the words after `replay`; returns the exit status."""
    options = parse_options(arguments)
    try:
        columns = Columns(options.time, options.work, options.bin_s)
        samples, interval_s = read_trace(options.trace, columns)
        peak = max(sample.work for sample in samples) / interval_s
        config = _pool_config(options, peak, interval_s)
        decisions, summary = replay(PoolPlanner(config), samples)
        if options.plot is not None:
            picture = _plot(options.trace.name, config, samples, decisions)
            options.plot.write_text(picture, encoding="utf-8")
    except (BadTrace, BadConfig, OSError) as error:
        sys.stderr.write(f"penstock scaler replay: {error}\n")
        return USAGE_ERROR
    for decision in decisions:
        if options.json:
            sys.stdout.write(json.dumps(asdict(decision)) + "\n")
        elif decision.wanted != decision.current:
            sys.stdout.write(_line(decision) + "\n")
    figures = {"trace": options.trace.name, "capacity": config.capacity, **asdict(summary)}
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


def _pool_config(options: argparse.Namespace, peak: float, interval_s: float) -> PoolConfig:
    """The pool of the configuration file, or one as the options say, with the trace's interval.

    Without a capacity, the most instances do just the peak.

    Raises:
        BadConfig: an option or the file is wrong, or has no such pool.
    """
    if options.config is None:
        fields = _fields_of_options(options, interval_s)
    else:
        fields = _pool_of_file(options.config, options.pool).model_dump()
    fields |= {"interval_s": interval_s, "stale_after_s": STALE_STEPS * interval_s}
    try:
        config = PoolConfig.model_validate(fields)
    except ValidationError as error:
        raise BadConfig([_problem(dict(item)) for item in error.errors()]) from None
    if config.capacity:
        return config
    return config.model_copy(update={"capacity": peak / config.max_instances or 1.0})


def _fields_of_options(options: argparse.Namespace, interval_s: float) -> dict[str, Any]:
    return {
        "name": options.trace.stem,
        "min_instances": options.min_instances,
        "max_instances": options.max_instances,
        "level": options.level,
        "capacity": options.capacity,
        "target_utilisation": options.target_utilisation,
        "initial_lead_time_s": options.lead_time_s or interval_s,
        "start_cost_s": options.start_cost_s,
        "shortage_cost": options.shortage_cost,
        "excess_cost": options.excess_cost,
    }


def _pool_of_file(path: Path, name: str) -> PoolConfig:
    """The named pool of the file; where no name is given, the only one."""
    section = load_section(path, "scaling", ScalingSection)
    pools = {pool.name: pool for pool in section.pools}
    if not name and len(pools) == 1:
        return section.pools[0]
    if name not in pools:
        known = ", ".join(pools) or "none"
        raise BadConfig([f"--pool: there is no pool {name!r}; the file has {known}"])
    return pools[name]


def _problem(item: Mapping[str, Any]) -> str:
    """What is wrong with an option, by its name."""
    text = str(item["msg"]).removeprefix("Value error, ")
    if not item["loc"]:
        return text
    field = str(item["loc"][0])
    option = OPTIONS_OF_FIELDS.get(field, field).replace("_", "-")
    return f"--{option}: {text}"


def _plot(title: str, config: PoolConfig, samples: list[Sample], decisions: list[Decision]) -> str:
    ahead = round(decisions[-1].horizon_s / config.interval_s)
    pairs = list(in_effect(samples, decisions, ahead))
    return svg(
        title,
        times_s=[sample.start_s for sample, _ in pairs],
        demand=[sample.work / config.interval_s for sample, _ in pairs],
        capacity=[decision.wanted * config.capacity for _, decision in pairs],
    )


def _line(decision: Decision) -> str:
    made = datetime.datetime.fromtimestamp(decision.made_s, datetime.UTC)
    return (
        f"{made.isoformat(timespec='seconds')} {decision.current} -> {decision.wanted} "
        f"({decision.reason}; {decision.level:g} quantile {decision.forecast:.4g}, "
        f"horizon {decision.horizon_s:g} s, present demand needs {decision.floor})"
    )
