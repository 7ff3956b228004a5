"""Budget trees of agent runs under kills and lost answers: a campaign of seeds, and its sums.

python -m penstock.bench.runs.trees --seeds 1000
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from penstock.bench.fault_suite import logs
from penstock.bench.harness.json_lines import rows
from penstock.bench.harness.progress import say
from penstock.service.logs import silenced
from penstock.simulation.agent_trees import LIMITERS, Outcome, play

LOG = logs.FOLDER / "run-trees.jsonl"
MIN_SEEDS = 1_000
WRONG = ("overshoot", "lost_share", "paid_twice", "reserve_refused")


def figures_of(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """The sums of a campaign's lines, of each seed the last: what it found before is mended."""
    seeds = list({row["seed"]: row for row in rows}.values())
    if not seeds:
        raise FileNotFoundError(f"{LOG} has no seed: python -m penstock.bench.runs.trees")
    total = {
        each.name: sum(row[each.name] for row in seeds)
        for each in fields(Outcome)
        if each.name != "seed"
    }
    return {
        "tree_seeds": len(seeds),
        "tree_limiters": LIMITERS,
        "tree_min_children": min(row["children"] for row in seeds),
        "tree_calls": total["calls"],
        "tree_kills": total["kills"],
        "tree_callers_killed": total["abandoned"],
        "tree_raises": total["raises"],
        "tree_overshoot": total["overshoot"],
        "tree_lost_share": total["lost_share"],
        "resumed_paid_twice": total["paid_twice"],
        "reserve_kept": 1 - total["reserve_refused"] / max(1, len(seeds)),
    }


def played(seeds: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Play seeds; a line for each."""
    for seed in seeds:
        # Limiters say that their stores are lost, as they are here.
        with silenced(logging.WARNING):
            row = asdict(play(seed))
        if any(row[name] for name in WRONG):
            say(f"run trees: {row}")
        yield row


def main() -> int:
    """Play the seeds after those of the log, and append them; 1 where one went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to play")
    parser.add_argument("--from", type=int, dest="first", help="default: the one after the log's")
    parser.add_argument("--log", type=Path, default=LOG, help="file that gets a line for each")
    given = parser.parse_args()
    first = given.first
    if first is None:
        first = 1 + max((row["seed"] for row in rows(given.log)), default=-1)
    wrong = 0
    for row in played(range(first, first + given.seeds)):
        logs.append(given.log, row)
        wrong += any(row[name] for name in WRONG)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
