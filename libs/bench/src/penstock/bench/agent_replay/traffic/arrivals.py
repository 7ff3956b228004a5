"""When runs start: by the arrivals of Azure's and of Mooncake's traces, at a share of the
upstream's capacity.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from penstock.bench.harness.data_sets import azure_trace
from penstock.bench.harness.options import Options

AZURE, MOONCAKE = "azure", "mooncake"
MOONCAKE_FOLDER = "mooncake"
SEED = 20260301


def due_times_s(trace: Sequence[float], count: int, rate: float, seed: int = SEED) -> list[float]:
    """The starts of so many runs, the first at 0, at a mean rate: a trace, thinned at random to
    that many arrivals and scaled in time.

    Args:
        trace: rising times.
        count: of runs, at least 1.
        rate: of runs a second.
        seed: of the thinning.

    Raises:
        ValueError: the trace has fewer arrivals than there are runs.
    """
    if count > len(trace):
        raise ValueError(f"{count} runs need a trace of as many arrivals, not of {len(trace)}")
    chosen = sorted(random.Random(seed).sample(list(trace), count))
    first, length = chosen[0], (chosen[-1] - chosen[0]) or 1.0
    scale = (count - 1) / rate / length
    return [(time - first) * scale for time in chosen]


def arrivals_s(options: Options, trace: str) -> list[float]:
    """The arrivals of a trace in seconds, or those of a Poisson process where it is not there."""
    if trace == AZURE:
        rows = azure_trace(options)
        return sorted(row.at_s for row in rows) if rows is not None else _poisson()
    folder = options.folder(MOONCAKE_FOLDER)
    if folder is None:
        return _poisson()
    lines = next(folder.glob("*.jsonl")).read_text(encoding="utf-8").splitlines()
    return sorted(json.loads(line)["timestamp"] / 1e3 for line in lines)


def _poisson() -> list[float]:
    rng = random.Random(SEED)
    gaps = [rng.expovariate(1.0) for _ in range(20_000)]
    times, time = [], 0.0
    for gap in gaps:
        time += gap
        times.append(time)
    return times
