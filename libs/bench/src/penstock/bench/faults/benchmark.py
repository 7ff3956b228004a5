"""Faults: a store that stops, processes that are killed and stopped under load, and what the ledger
says afterwards.

`stall_*_errors`: errors of callers with 10 s, of every task kind, while the ledger's store stops
again and again. `lost`, `double_charged`, `overshoot`, `ledger_differs`: sums over all rounds of
the campaign whose lines stand in `faults-campaign.jsonl`; each run adds rounds to it.
`decisions_vs_store_limit`: decisions a second through the store, against as many pipelined SETs as
a decision writes. `restart_full_cache_s`: from the start of a cache with 300,000 entries until it
serves. `hung_peer_added_ms`: p99 of calls at a fixed rate while a process beside the router is
stopped, less p99 before; the largest of several. `rolling_restart_errors`: calls of the client
library that failed while each process of a stack with two cells was restarted. `one_key_memory_mb`:
the most that one key made any service grow.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from penstock.bench.faults import (
    cache_restart,
    campaign,
    crash_loss,
    decisions,
    hung,
    one_key,
    restarts,
    stalls,
)
from penstock.bench.harness.options import Options
from penstock.bench.harness.progress import say
from penstock.bench.harness.report import Bound, Number, Result, Table
from penstock.service.store import Appendfsync

PARTS = ("stalls", "campaign", "decisions", "crash", "cache", "hung", "restarts", "one-key")
LOG = Path("docs/benchmarks/faults-campaign.jsonl")
ROUNDS = 4
"""Rounds of the campaign that one run adds, of about three minutes each."""
STALLS = {0.3: 12, 2.0: 5}
"""How often the store stops, by seconds."""
CACHE_ENTRIES = 300_000
KILLS_PER_SETTING = 10
SETTINGS: tuple[tuple[str, Appendfsync, bool], ...] = (
    ("always", "always", True),
    ("everysec, WAITAOF (the default)", "everysec", True),
    ("everysec, not waited for", "everysec", False),
)
NEEDS_MODELS = True
BOUNDS = {
    "stall_300ms_errors": Bound("<=", 0),
    "stall_2s_errors": Bound("<=", 0),
    "lost": Bound("<=", 0),
    "double_charged": Bound("<=", 0),
    "overshoot": Bound("<=", 0),
    "ledger_differs": Bound("<=", 0),
    "faults_tried": Bound(">=", 1_000),
    "decisions_vs_store_limit": Bound(">=", 0.7),
    "restart_full_cache_s": Bound("<=", 5),
    "hung_peer_added_ms": Bound("<=", 500),
    "hung_peer_errors": Bound("<=", 0),
    "rolling_restart_errors": Bound("<=", 0),
    "one_key_memory_mb": Bound("<=", 64),
}
T = TypeVar("T")
Figures = dict[str, Number]


def run(options: Options) -> Result:
    """Measure every part, or the one that is asked for."""
    figures: Figures = {}
    tables: list[Table] = []
    context: dict[str, object] = {"store": "Valkey 9.1, append-only file, everysec, unix socket"}
    for part in [options.part] if options.part else PARTS:
        match part:
            case "stalls":
                figures |= _stalls(options.quick)
            case "campaign":
                figures |= _campaign(options.quick)
            case "decisions":
                figures |= _decisions(options.quick)
            case "crash":
                tables.append(_crash(options.quick))
            case "cache":
                figures |= _cache(options.quick)
            case "hung":
                figures |= _hung(options.quick)
            case "restarts":
                figures |= _restarts()
            case "one-key":
                figures |= _one_key(options.quick)
            case _:
                raise ValueError(f"{part!r} is not one of {', '.join(PARTS)}")
    return Result(figures, BOUNDS, context, tuple(tables))


def _in_folder(make: Any, *arguments: Any, **named: Any) -> Any:
    """Run a coroutine function in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="penstock-faults-") as folder:
        work: Coroutine[Any, Any, Any] = make(Path(folder) / "data", *arguments, **named)
        return asyncio.run(work)


def _stalls(quick: bool) -> Figures:
    figures: Figures = {}
    for stall_s, count in STALLS.items():
        tally: stalls.Tally = _in_folder(stalls.measure, stall_s, 2 if quick else count)
        name = "stall_2s_errors" if stall_s >= 1 else "stall_300ms_errors"
        figures[name] = len(tally.errors)
        say(f"{tally.answered} answered, {len(tally.errors)} errors: {tally.errors[:3]}")
    return figures


def _campaign(quick: bool) -> Figures:
    """Add rounds to the log, and sum it. A quick run has a log of its own, which is not kept."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log" if quick else LOG
        for _ in range(1 if quick else ROUNDS):
            seed = len(campaign.rounds_in(log))
            faults = 3 if quick else campaign.FAULTS_IN_ROUND
            one: campaign.Round = _in_folder(campaign.play, seed, faults)
            campaign.append_round(log, one)
            say(f"round {seed}: {one.answered} answered, {one.jobs} jobs, {one.wrong}")
        rounds = campaign.rounds_in(log)
    return {
        "lost": sum(one.lost for one in rounds),
        "double_charged": sum(one.double_charged for one in rounds),
        "overshoot": sum(one.overshoot for one in rounds),
        "ledger_differs": sum(one.ledger_differs for one in rounds),
        "faults_tried": sum(one.kills + one.stops for one in rounds),
        "calls_answered": sum(one.answered for one in rounds),
        "jobs_ended": sum(one.jobs for one in rounds),
    }


def _decisions(quick: bool) -> Figures:
    turns, turn_s = (2, 0.5) if quick else (10, 2.0)
    measured: decisions.Decisions = _in_folder(decisions.measure, turns, turn_s)
    return {
        "decisions_vs_store_limit": measured.per_s / measured.sets_per_s,
        "decisions_per_s": measured.per_s,
        "store_limit_per_s": measured.sets_per_s,
        "writes_per_decision": measured.writes,
        "bytes_per_decision": measured.bytes_each,
    }


def _crash(quick: bool) -> Table:
    rows = []
    for name, appendfsync, waits in SETTINGS:
        losses: list[crash_loss.Loss] = [
            _in_folder(crash_loss.measure, appendfsync, waits=waits, seed=seed)
            for seed in range(1 if quick else KILLS_PER_SETTING)
        ]
        answered, lost = sum(one.answered for one in losses), sum(one.lost for one in losses)
        rows.append((name, len(losses), answered, lost))
    columns = ("appendfsync", "kills", "settlements answered", "of these lost")
    return Table("What a kill of the store takes with it", columns, tuple(rows))


def _cache(quick: bool) -> Figures:
    entries = 5_000 if quick else CACHE_ENTRIES
    return {"restart_full_cache_s": _in_folder(cache_restart.measure, entries)}


def _hung(quick: bool) -> Figures:
    found: hung.Hung = _in_folder(hung.measure, 3.0 if quick else hung.SECONDS)
    added = {f"hung_{name}_added_ms": value for name, value in found.added_ms.items()}
    return {
        "hung_peer_added_ms": max(found.added_ms.values()),
        "hung_peer_errors": found.errors,
        **added,
    }


def _restarts() -> Figures:
    found: restarts.Restarts = _in_folder(restarts.measure)
    say(f"{found.answered} answered, {len(found.errors)} errors: {found.errors[:3]}")
    return {
        "rolling_restart_errors": len(found.errors),
        "rolling_restart_answers": found.answered,
        "rolling_restarts": len(found.restarted),
    }


def _one_key(quick: bool) -> Figures:
    grown: dict[str, float] = _in_folder(one_key.measure, 0.1 if quick else 1.0)
    return {"one_key_memory_mb": max(grown.values())}
