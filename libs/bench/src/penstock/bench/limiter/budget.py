"""Budgets in virtual time on the Azure trace with spikes of cost.

The limiter's own script, against a fixed limit of requests.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.limiter.counters import SpendPath, counters_of
from penstock.limiter.output_estimates import CallGroup, OutputEstimates
from penstock.limiter.rules import LimitsSection, RuleSection
from penstock.limiter.script import Reservation
from penstock.simulation.azure_trace import TraceRow
from penstock.simulation.ledger import SimulatedLedger

START_S = 1_800_000_000
WINDOW_S = 60
INPUT_MICROUSD, OUTPUT_MICROUSD = 3, 15
"""For each token: three and fifteen dollars a million."""
MAX_TOKENS = 1_000
"""The `max_tokens` of every call, as many as the trace's longest answer has."""
HEADROOM = 1.2
"""The budget of a window, relative to the trace's mean cost."""
SPIKE_FACTOR, SPIKES, SPIKE_S = 8, 6, 180
"""In six stretches of three minutes the prompts are eight times as long, as of an agent that reads
its whole history again.
"""
PRIORITY_SHARES = {1: 0.3, 2: 0.4, 3: 0.2, 4: 0.1}
FIRST_TOKEN_S, TOKENS_PER_S = 0.3, 50.0
HOLD_MS = 600_000
OUTPUT_QUANTILE = 0.9


@dataclass(frozen=True, slots=True)
class Arrival:
    """One call: when it comes, its priority (4 is critical), and its tokens."""

    at_s: float
    priority: int
    input_tokens: int
    output_tokens: int

    @property
    def cost_microusd(self) -> int:
        """What the call costs."""
        return _cost_microusd(self.input_tokens, self.output_tokens)

    @property
    def ends_s(self) -> float:
        """When its answer is complete."""
        return self.at_s + FIRST_TOKEN_S + self.output_tokens / TOKENS_PER_S


def _cost_microusd(input_tokens: int, output_tokens: int) -> int:
    return input_tokens * INPUT_MICROUSD + output_tokens * OUTPUT_MICROUSD


@dataclass
class Spending:
    """Micro-dollars spent in each window, and calls made and served by priority."""

    spent_microusd: dict[int, int] = field(default_factory=dict)
    calls: dict[int, int] = field(default_factory=lambda: dict.fromkeys(PRIORITY_SHARES, 0))
    served: dict[int, int] = field(default_factory=lambda: dict.fromkeys(PRIORITY_SHARES, 0))

    def serve(self, call: Arrival) -> None:
        """Count a served call in the window in which it came."""
        window = _window(call)
        self.served[call.priority] += 1
        self.spent_microusd[window] = self.spent_microusd.get(window, 0) + call.cost_microusd

    def overrun(self, budget: int) -> int:
        """Micro-dollars beyond the budget, summed over the windows."""
        return sum(max(0, spent - budget) for spent in self.spent_microusd.values())

    def share(self, priority: int) -> float:
        """Share of the calls of a priority that were served."""
        return self.served[priority] / max(1, self.calls[priority])


def _window(call: Arrival) -> int:
    return int(call.at_s // WINDOW_S)


def arrivals(trace: Sequence[TraceRow], seed: int) -> list[Arrival]:
    """The trace with priorities drawn at random and spikes at random places."""
    rng = random.Random(seed)
    spikes_s = [rng.uniform(0, trace[-1].at_s - SPIKE_S) for _ in range(SPIKES)]
    weights = list(PRIORITY_SHARES.values())
    priorities = rng.choices(list(PRIORITY_SHARES), weights, k=len(trace))

    def factor(at_s: float) -> int:
        in_spike = any(begin_s <= at_s < begin_s + SPIKE_S for begin_s in spikes_s)
        return SPIKE_FACTOR if in_spike else 1

    return [
        Arrival(row.at_s, priority, row.input_tokens * factor(row.at_s), row.output_tokens)
        for row, priority in zip(trace, priorities, strict=True)
    ]


def budget_of(trace: Sequence[TraceRow]) -> int:
    """Micro-dollars a window: the trace's mean cost without spikes, times HEADROOM."""
    total = sum(_cost_microusd(row.input_tokens, row.output_tokens) for row in trace)
    return round(total / trace[-1].at_s * WINDOW_S * HEADROOM)


def fixed_requests(calls: Sequence[Arrival], budget: int, trace: Sequence[TraceRow]) -> Spending:
    """A fixed number of requests a window: as many as the budget pays for at the mean cost."""
    total = sum(_cost_microusd(row.input_tokens, row.output_tokens) for row in trace)
    max_requests = math.floor(budget / (total / len(trace)))
    spending = Spending()
    requests: dict[int, int] = {}
    for call in calls:
        window = _window(call)
        spending.calls[call.priority] += 1
        if requests.get(window, 0) < max_requests:
            requests[window] = requests.get(window, 0) + 1
            spending.serve(call)
    return spending


def spent_after_answer(calls: Sequence[Arrival], budget: int) -> Spending:
    """A budget as gateways have it that count money once it is spent: a call is let in while what
    its window has spent, by the answers that have come, is below the budget.
    """
    spending = Spending()
    spent_microusd: dict[int, int] = {}
    in_flight: list[tuple[float, int]] = []
    for number, call in enumerate(calls):
        while in_flight and in_flight[0][0] <= call.at_s:
            ended = calls[heapq.heappop(in_flight)[1]]
            window = _window(ended)
            spent_microusd[window] = spent_microusd.get(window, 0) + ended.cost_microusd
        spending.calls[call.priority] += 1
        if spent_microusd.get(_window(call), 0) < budget:
            spending.serve(call)
            heapq.heappush(in_flight, (call.ends_s, number))
    return spending


def limited(
    calls: Sequence[Arrival],
    budget: int,
    holds: Literal["strict", "expected"],
    *,
    adaptive: bool = True,
) -> Spending:
    """The same calls through one budget rule of ours.

    Money counts in the window in which it was held, as the rule counts it.
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
    return _Limiter(LimitsSection(rules=(rule,))).run(calls)


class _Limiter:
    """One organisation's ledger and output estimates in virtual time."""

    def __init__(self, section: LimitsSection) -> None:
        self._section = section
        self._path = SpendPath("a", model="m")
        self._group = CallGroup("a", "m")
        self._ledger = SimulatedLedger("a")
        self._estimates = OutputEstimates(OUTPUT_QUANTILE)

    def run(self, calls: Sequence[Arrival]) -> Spending:
        spending = Spending()
        in_flight: list[tuple[float, int]] = []
        for number, call in enumerate(calls):
            while in_flight and in_flight[0][0] <= call.at_s:
                end_s, ended = heapq.heappop(in_flight)
                self._settle(end_s, ended, calls[ended])
            spending.calls[call.priority] += 1
            if self._reserve(number, call):
                spending.serve(call)
                heapq.heappush(in_flight, (call.ends_s, number))
        return spending

    def _reserve(self, number: int, call: Arrival) -> bool:
        now_s = START_S + call.at_s
        input_microusd = call.input_tokens * INPUT_MICROUSD
        max_output_microusd = MAX_TOKENS * OUTPUT_MICROUSD
        min_cost = [1, call.input_tokens, input_microusd]
        max_cost = [1, call.input_tokens + MAX_TOKENS, input_microusd + max_output_microusd]
        expected_cost = self._estimates.expected_cost(self._group, max_cost, min_cost)
        reservation = Reservation(max_cost, expected_cost, min_cost, HOLD_MS, call.priority)
        counters = counters_of(self._section, self._path, now_s)
        ruling = self._ledger.reserve(round(now_s * 1e6), str(number), counters, reservation)
        return ruling.verdict == pb.VERDICT_ALLOWED

    def _settle(self, end_s: float, number: int, call: Arrival) -> None:
        spent = [1, call.input_tokens + call.output_tokens, call.cost_microusd]
        self._ledger.settle(round((START_S + end_s) * 1e6), str(number), spent)
        output_microusd = call.output_tokens * OUTPUT_MICROUSD
        self._estimates.record(self._group, [0, call.output_tokens, output_microusd])
