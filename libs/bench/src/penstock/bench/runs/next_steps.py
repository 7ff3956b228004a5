"""How long an agent run's next step waits behind its siblings, simulated in virtual time.

A run has eight subagents, each a run of its own, that ask sixteen calls at once; while these wait,
the run asks for its next step. The queue and the formation of batches are the batcher's own; the
worker's time is a formula. Today's order is that of the same calls without their runs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.batcher.queue.requests import NORMAL, WorkItem
from penstock.simulation.batch_queue import CPU, FairBatching, log_normal_length, simulate

SIBLINGS, CALLS_OF_EACH = 8, 16
DEADLINE_S = 30.0
NEXT_STEP = SIBLINGS * CALLS_OF_EACH
SPREAD_S = 0.4
"""The next step arrives at a moment drawn from this long after the siblings' calls; they take about
twice that.
"""


@dataclass(frozen=True)
class Waits:
    """Mean seconds of a next step from its arrival to its answer, and tokens served a second."""

    by_deadline_s: float
    by_run_s: float
    by_deadline_rate: float
    by_run_rate: float

    @property
    def cut(self) -> float:
        """The share of the wait that is gone."""
        return 1 - self.by_run_s / self.by_deadline_s

    @property
    def throughput_kept(self) -> float:
        """Throughput ÷ that of today's order."""
        return self.by_run_rate / self.by_deadline_rate


def measure(seeds: Sequence[int]) -> Waits:
    """Serve the calls of each seed in both orders."""
    waits: dict[bool, list[float]] = {True: [], False: []}
    tokens, seconds = 0, {True: 0.0, False: 0.0}
    for seed in seeds:
        calls = _calls(random.Random(seed))
        tokens += sum(call.tokens for call in calls)
        for by_run, runs_in in waits.items():
            arrivals = calls if by_run else [call._replace(run_id="") for call in calls]
            served = simulate(arrivals, FairBatching(CPU), CPU)
            step = next(call for call in arrivals if call.id == NEXT_STEP)
            runs_in.append(served.finished_s[NEXT_STEP] - step.arrived_s)
            seconds[by_run] += served.ended_s
    return Waits(
        sum(waits[False]) / len(seeds),
        sum(waits[True]) / len(seeds),
        tokens / seconds[False],
        tokens / seconds[True],
    )


def _calls(rng: random.Random) -> list[WorkItem]:
    """The siblings' calls in a drawn order, and the next step, by arrival."""
    runs = [f"sibling-{number % SIBLINGS}" for number in range(NEXT_STEP)]
    rng.shuffle(runs)
    calls = [_call(number, run, 0.0, rng) for number, run in enumerate(runs)]
    return [*calls, _call(NEXT_STEP, "parent", rng.uniform(0, SPREAD_S), rng)]


def _call(number: int, run_id: str, arrived_s: float, rng: random.Random) -> WorkItem:
    tokens = log_normal_length(rng)
    deadline_s = arrived_s + DEADLINE_S
    return WorkItem(number, NORMAL, "t", "m", 1, tokens, arrived_s, deadline_s, run_id=run_id)
