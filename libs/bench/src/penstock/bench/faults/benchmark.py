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
the most that one key made any service grow, the median over fresh stacks.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

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
from penstock.bench.harness.intervals import (
    Interval,
    blocks_of,
    bootstrap,
    medians,
    of_share,
    pooled_quantile,
)
from penstock.bench.harness.options import Options
from penstock.bench.harness.parts import Measure, Part, run_parts
from penstock.bench.harness.progress import say
from penstock.bench.harness.report import Bound, Number, Result, Table
from penstock.service.store import Appendfsync

LOG = Path("docs/benchmarks/faults-campaign.jsonl")
ROUNDS = 1
"""Rounds of the campaign that one run adds, of about three minutes each."""
STALLS = {0.3: 12, 2.0: 5}
"""How often the store stops, by seconds."""
CACHE_ENTRIES, CACHE_STARTS = 300_000, 6
KILLS_PER_SETTING = 5
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
STORE = "Valkey 9.1, append-only file, everysec, unix socket"
LATENCY_BLOCKS = 20
"""Blocks of consecutive calls that the interval of a latency is over."""
ONE_KEY_STACKS = 6
"""Fresh stacks that one key attacks."""


def run(options: Options) -> Result:
    """Measure every part, or the one that is asked for."""
    return run_parts("faults", PARTS, options, BOUNDS, {"store": STORE})


def _in_folder(make: Any, *arguments: Any, **named: Any) -> Any:
    """Run a coroutine function in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="penstock-faults-") as folder:
        work: Coroutine[Any, Any, Any] = make(Path(folder) / "data", *arguments, **named)
        return asyncio.run(work)


def _stalls(quick: bool) -> Part:
    figures: dict[str, Number] = {}
    intervals: dict[str, Interval] = {}
    for stall_s, count in STALLS.items():
        tally: stalls.Tally = _in_folder(stalls.measure, stall_s, 2 if quick else count)
        name = "stall_2s" if stall_s >= 1 else "stall_300ms"
        errors, calls = len(tally.errors), tally.answered + len(tally.errors)
        figures |= {f"{name}_errors": errors, f"{name}_error_share": errors / calls}
        intervals[f"{name}_error_share"] = of_share(errors, calls, "calls")
        say(f"{tally.answered} answered, {errors} errors: {tally.errors[:3]}")
    return Part(figures, intervals=intervals, exact=frozenset(figures) - frozenset(intervals))


def _campaign(quick: bool) -> Part:
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
    lost = sum(one.lost for one in rounds)
    answered, jobs = sum(one.answered for one in rounds), sum(one.jobs for one in rounds)
    figures = {
        "lost": lost,
        "double_charged": sum(one.double_charged for one in rounds),
        "overshoot": sum(one.overshoot for one in rounds),
        "ledger_differs": sum(one.ledger_differs for one in rounds),
        "faults_tried": sum(one.kills + one.stops for one in rounds),
        "calls_answered": answered,
        "jobs_ended": jobs,
    }
    exact = frozenset(figures)
    share = of_share(min(lost, answered + jobs), answered + jobs, "calls and jobs")
    return Part(
        figures | {"lost_share": lost / (answered + jobs)},
        intervals={"lost_share": share},
        exact=exact,
    )


def _decisions(quick: bool) -> Part:
    turns, turn_s = (2, 0.5) if quick else (10, 2.0)
    measured: decisions.Decisions = _in_folder(decisions.measure, turns, turn_s)
    rounds = [
        {
            "decisions_vs_store_limit": per_s / sets_per_s,
            "decisions_per_s": per_s,
            "store_limit_per_s": sets_per_s,
        }
        for per_s, sets_per_s in measured.turns
    ]
    written = {"writes_per_decision": measured.writes, "bytes_per_decision": measured.bytes_each}
    return Part(medians(rounds) | written, intervals=bootstrap(rounds, medians, "rounds"))


def _crash(quick: bool) -> Part:
    rows = []
    for name, appendfsync, waits in SETTINGS:
        losses: list[crash_loss.Loss] = [
            _in_folder(crash_loss.measure, appendfsync, waits=waits, seed=seed)
            for seed in range(1 if quick else KILLS_PER_SETTING)
        ]
        answered, lost = sum(one.answered for one in losses), sum(one.lost for one in losses)
        rows.append((name, len(losses), answered, lost))
    columns = ("appendfsync", "kills", "settlements answered", "of these lost")
    table = Table("What a kill of the store takes with it", columns, tuple(rows))
    return Part({}, tables=(table,))


def _cache(quick: bool) -> Part:
    entries, starts = (5_000, 1) if quick else (CACHE_ENTRIES, CACHE_STARTS)
    took_s: list[float] = _in_folder(cache_restart.measure, entries, starts)
    rows = [{"restart_full_cache_s": each} for each in took_s]
    return Part(medians(rows), intervals=bootstrap(rows, medians, "starts"))


def _hung(quick: bool) -> Part:
    found: hung.Hung = _in_folder(hung.measure, 3.0 if quick else hung.SECONDS)
    sides = {"before": found.before, **found.during}
    cut = {name: blocks_of(side.ms, LATENCY_BLOCKS) for name, side in sides.items()}
    blocks = [dict(zip(cut, row, strict=True)) for row in zip(*cut.values(), strict=False)]
    share = of_share(found.errors, found.calls, "calls")
    return Part(
        {
            **_added_ms(blocks),
            "hung_peer_errors": found.errors,
            "hung_peer_error_share": found.errors / found.calls,
        },
        intervals={
            **bootstrap(blocks, _added_ms, "blocks of calls"),
            "hung_peer_error_share": share,
        },
        exact=frozenset({"hung_peer_errors"}),
    )


def _added_ms(blocks: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """p99 with each process stopped, less p99 before; and the largest of them."""
    p99_ms = {name: pooled_quantile([block[name] for block in blocks], 0.99) for name in blocks[0]}
    added_ms = {
        f"hung_{name}_added_ms": each - p99_ms["before"]
        for name, each in p99_ms.items()
        if name != "before"
    }
    return {"hung_peer_added_ms": max(added_ms.values()), **added_ms}


def _restarts(_quick: bool) -> Part:
    found: restarts.Restarts = _in_folder(restarts.measure)
    errors, calls = len(found.errors), found.answered + len(found.errors)
    say(f"{found.answered} answered, {errors} errors: {found.errors[:3]}")
    figures = {
        "rolling_restart_errors": errors,
        "rolling_restart_answers": found.answered,
        "rolling_restarts": len(found.restarted),
    }
    exact = frozenset(figures)
    return Part(
        figures | {"rolling_restart_error_share": errors / calls},
        intervals={"rolling_restart_error_share": of_share(errors, calls, "calls")},
        exact=exact,
    )


def _one_key(quick: bool) -> Part:
    """What one key made a service grow, the largest of all attacks on each fresh stack."""
    rows = []
    for _ in range(1 if quick else ONE_KEY_STACKS):
        grown: dict[str, float] = _in_folder(one_key.measure, 0.1 if quick else 1.0)
        rows.append({"one_key_memory_mb": max(grown.values())})
    return Part(medians(rows), intervals=bootstrap(rows, medians, "stacks"))


PARTS: Mapping[str, Measure] = {
    "stalls": _stalls,
    "campaign": _campaign,
    "decisions": _decisions,
    "crash": _crash,
    "cache": _cache,
    "hung": _hung,
    "restarts": _restarts,
    "one-key": _one_key,
}
