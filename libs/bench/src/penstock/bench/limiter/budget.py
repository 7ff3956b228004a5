"""Budgets in virtual time: the limiter's own script on the Azure trace with spikes of cost, against
a fixed limit of requests.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.counters import SpendPath, counters_of
from penstock.limiter.output_estimates import CallGroup, OutputEstimates
from penstock.limiter.rules import LimitsSection, RuleSection
from penstock.limiter.script import Reservation
from penstock.simulation.ledger import SimulatedLedger

START_S = 1_800_000_000
WINDOW_S = 60
INPUT, OUTPUT = 3, 15
"""Micro-dollars a token: three and fifteen dollars a million."""
MAX_TOKENS = 1_000
"""What every call allows its answer; the longest of the trace has as many."""
HEADROOM = 1.2
"""The budget of a window, in means of the trace."""
SPIKE, SPIKES, SPIKE_S = 8, 6, 180
"""In so many stretches of so many seconds the prompts are so many times as long: an agent that
re-reads its whole history.
"""
MIX = {1: 0.3, 2: 0.4, 3: 0.2, 4: 0.1}
TOKENS_A_S = 50.0
HOLD_MS = 600_000
GROUP = CallGroup("a", "m")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One call of the trace: when, how urgent, what it costs to read and to answer."""

    at_s: float
    priority: int
    input_tokens: int
    output_tokens: int

    @property
    def paid(self) -> int:
        return self.input_tokens * INPUT + self.output_tokens * OUTPUT

    @property
    def ends_s(self) -> float:
        return self.at_s + 0.3 + self.output_tokens / TOKENS_A_S


@dataclass
class Outcome:
    """Spent in each window, and calls asked and served by urgency."""

    spent: dict[int, int]
    asked: dict[int, int]
    served: dict[int, int]

    def overrun(self, budget: int) -> int:
        """Micro-dollars beyond the budget, summed over the windows."""
        return sum(max(0, spent - budget) for spent in self.spent.values())

    def share(self, priority: int) -> float:
        return self.served[priority] / max(1, self.asked[priority])


def arrivals(rows: Sequence[tuple[float, int, int]], seed: int) -> list[Arrival]:
    """The trace (seconds, input tokens, output tokens) with urgencies by lot and spikes at random
    places.
    """
    rng = random.Random(seed)
    length = rows[-1][0]
    spikes = [rng.uniform(0, length - SPIKE_S) for _ in range(SPIKES)]
    priorities = rng.choices(list(MIX), list(MIX.values()), k=len(rows))
    return [
        Arrival(
            at,
            priority,
            read * (SPIKE if any(begin <= at < begin + SPIKE_S for begin in spikes) else 1),
            said,
        )
        for (at, read, said), priority in zip(rows, priorities, strict=True)
    ]


def budget_of(rows: Sequence[tuple[float, int, int]]) -> int:
    """Micro-dollars a window: the trace's mean without spikes, and some room."""
    total = sum(read * INPUT + said * OUTPUT for _, read, said in rows)
    return round(total / rows[-1][0] * WINDOW_S * HEADROOM)


def fixed_requests(
    calls: Sequence[Arrival], budget: int, rows: Sequence[tuple[float, int, int]]
) -> Outcome:
    """A fixed number of requests a window: as many as the budget pays for at the trace's mean
    cost.
    """
    mean = sum(read * INPUT + said * OUTPUT for _, read, said in rows) / len(rows)
    most, outcome, taken = math.floor(budget / mean), _empty(), dict[int, int]()
    for call in calls:
        window = int(call.at_s // WINDOW_S)
        outcome.asked[call.priority] += 1
        if taken.get(window, 0) < most:
            taken[window] = taken.get(window, 0) + 1
            outcome.served[call.priority] += 1
            outcome.spent[window] = outcome.spent.get(window, 0) + call.paid
    return outcome


def limited(
    calls: Sequence[Arrival],
    budget: int,
    holds: Literal["strict", "expected"],
    *,
    adaptive: bool = True,
) -> Outcome:
    """The same calls through one budget rule of ours.

    Spending counts in the window in which it was held, as the rule counts it.
    """
    rule = RuleSection(
        name="b",
        kind="budget",
        counts="microusd",
        limit=budget,
        window="minute",
        calendar=True,
        holds=holds,
        adaptive=adaptive,
    )
    section = LimitsSection(rules=(rule,))
    path = SpendPath("a", model="m")
    ledger = SimulatedLedger("a")
    estimates = OutputEstimates(0.9)
    outcome = _empty()
    ends: list[tuple[float, int]] = []
    for number, call in enumerate(calls):
        while ends and ends[0][0] <= call.at_s:
            at_s, ended = heapq.heappop(ends)
            _settle(ledger, estimates, calls[ended], str(ended), at_s)
        now_s = START_S + call.at_s
        counters = counters_of(section, path, now_s)
        reservation = _reservation(call, estimates)
        outcome.asked[call.priority] += 1
        ruling = ledger.reserve(round(now_s * 1e6), str(number), counters, reservation)
        if ruling.verdict == pb.VERDICT_ALLOWED:
            outcome.served[call.priority] += 1
            window = int(call.at_s // WINDOW_S)
            outcome.spent[window] = outcome.spent.get(window, 0) + call.paid
            heapq.heappush(ends, (call.ends_s, number))
    return outcome


def _reservation(call: Arrival, estimates: OutputEstimates) -> Reservation:
    min_cost = [1, call.input_tokens, call.input_tokens * INPUT]
    max_cost = [1, min_cost[1] + MAX_TOKENS, min_cost[2] + MAX_TOKENS * OUTPUT]
    expected_cost = estimates.expected_cost(GROUP, max_cost, min_cost)
    return Reservation(max_cost, expected_cost, min_cost, HOLD_MS, call.priority)


def _settle(
    ledger: SimulatedLedger, estimates: OutputEstimates, call: Arrival, hold_id: str, at_s: float
) -> None:
    spent = [1, call.input_tokens + call.output_tokens, call.paid]
    ledger.settle(round((START_S + at_s) * 1e6), hold_id, spent)
    estimates.record(GROUP, [0, call.output_tokens, call.output_tokens * OUTPUT])


def _empty() -> Outcome:
    return Outcome({}, dict.fromkeys(MIX, 0), dict.fromkeys(MIX, 0))
