"""How long an agent run's next step waits behind its siblings, simulated in virtual time.

A run has eight subagents, each a run of its own, that ask sixteen calls at once; while these wait,
the run asks for its next step. The queue and the formation of batches are the batcher's own; the
worker's time is a formula. Today's order is that of the same calls without their runs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from penstock.batcher.queue.requests import NORMAL, WorkItem
from penstock.simulation.batch_queue import CPU, FairBatching, log_normal_length, simulate

SIBLINGS, CALLS_OF_EACH = 8, 16
DEADLINE_S = 30.0
NEXT_STEP = SIBLINGS * CALLS_OF_EACH
SPREAD_S = 0.4
"""The next step arrives at a moment drawn from this long after the siblings' calls; they take about
twice that.
"""


class Waits(NamedTuple):
    """One seed: seconds of its next step from its arrival to its answer, by order; when all calls
    were served; and their tokens.
    """

    by_deadline_s: float
    by_run_s: float
    by_deadline_ended_s: float
    by_run_ended_s: float
    tokens: int


def figures(seeds: Sequence[Waits]) -> dict[str, float]:
    """The share of the wait that is gone, and the throughput ÷ that of today's order."""
    by_deadline_s, by_run_s, by_deadline_ended_s, by_run_ended_s, _ = sums(seeds)
    return {
        "next_step_wait_cut": 1 - by_run_s / by_deadline_s,
        "throughput_kept": by_deadline_ended_s / by_run_ended_s,
    }


def sums(seeds: Sequence[Waits]) -> Waits:
    """Each quantity over all seeds."""
    return Waits(*map(sum, zip(*seeds, strict=True)))


def measure(seeds: Sequence[int]) -> list[Waits]:
    """Serve the calls of each seed in both orders."""
    return [_of_seed(seed) for seed in seeds]


def _of_seed(seed: int) -> Waits:
    calls = _calls(random.Random(seed))
    arrived_s = next(call.arrived_s for call in calls if call.id == NEXT_STEP)
    by_run = simulate(calls, FairBatching(CPU), CPU)
    unnamed = [call._replace(run_id="") for call in calls]
    by_deadline = simulate(unnamed, FairBatching(CPU), CPU)
    return Waits(
        by_deadline.finished_s[NEXT_STEP] - arrived_s,
        by_run.finished_s[NEXT_STEP] - arrived_s,
        by_deadline.ended_s,
        by_run.ended_s,
        sum(call.tokens for call in calls),
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
