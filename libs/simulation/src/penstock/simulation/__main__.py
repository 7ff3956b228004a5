"""`python -m penstock.simulation`: run seeds of the simulated system, replay one, shrink it.

python -m penstock.simulation --seeds 200 --from 0 --log docs/benchmarks/simulation.jsonl
python -m penstock.simulation --replay 57
python -m penstock.simulation --replay 57 --only 'ledger#12,caller 2.0#0'
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from penstock.simulation.runs import Outcome, play, shrink

HASH_SEED = "PYTHONHASHSEED"


def main() -> int:
    """Run the command; 1 if an invariant was violated."""
    _fix_hash_seed()
    parser = argparse.ArgumentParser(prog="python -m penstock.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds to run")
    parser.add_argument("--from", type=int, default=None, dest="first", help="the first seed")
    parser.add_argument("--log", type=Path, help="file to which a line for each run is appended")
    parser.add_argument("--replay", type=int, help="run one seed, and shrink it if it fails")
    parser.add_argument("--only", help="keys of the faults that may happen in a replay")
    given = parser.parse_args()
    if given.replay is not None:
        return _replay(given.replay, given.only)
    first = given.first if given.first is not None else _next_seed(given.log)
    failed = sum(_report(play(seed), given.log) for seed in range(first, first + given.seeds))
    return int(failed > 0)


def _fix_hash_seed() -> None:
    """Start again with a fixed seed for the hashes of texts, on which the order of sets depends."""
    if os.environ.get(HASH_SEED) != "0":
        os.environ[HASH_SEED] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "penstock.simulation", *sys.argv[1:]])


def _next_seed(log: Path | None) -> int:
    """The seed after the last of a log."""
    if log is None or not log.exists():
        return 0
    return 1 + max(json.loads(line)["seed"] for line in log.read_text().splitlines())


def _report(outcome: Outcome, log: Path | None) -> bool:
    """Log a run and say what is wrong with it; returns whether anything is."""
    if log is not None:
        row = {
            "seed": outcome.seed,
            "calls": outcome.calls,
            "answered": outcome.answered,
            "faults": len(outcome.faults),
            "violations": [str(one) for one in outcome.violations],
            "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        }
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")
    for violation in outcome.violations:
        print(f"seed {outcome.seed}: {violation}", flush=True)
    return bool(outcome.violations)


def _replay(seed: int, only: str | None) -> int:
    if only is not None:
        outcome, kept = play(seed, frozenset(filter(None, only.split(",")))), only
    else:
        outcome, keys = shrink(seed)
        kept = ",".join(sorted(keys))
    print(f"seed {seed}: {outcome.calls} calls, {outcome.answered} answered: {outcome.digest}")
    for key, kind in outcome.faults.items():
        print(f"  {kind} at {key}")
    if _report(outcome, None):
        print(f"again: python -m penstock.simulation --replay {seed} --only {kept!r}")
    return int(bool(outcome.violations))


if __name__ == "__main__":
    sys.exit(main())
