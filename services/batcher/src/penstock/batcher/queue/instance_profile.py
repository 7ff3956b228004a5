"""What is learned about one instance from the batches that ran on it: how many it takes at once,
what they cost, and how large they may be.

The number of batches and streams at once is fixed, or learned from the instance's delays and
overload answers by the gradient rule of Netflix's concurrency-limits: it follows the ratio of the
long-term delay to the present one, with room for a small queue. An overload answer cuts it at once.

A batch takes t = base + per_token · rows · longest milliseconds: a fixed part, and a part that
grows with the padded size of the batch, its rows times the tokens of its longest row. One line
covers both kinds of hardware: a CPU, where padding costs, and a GPU, where a batch costs nearly the
same however full it is. The line is fitted by weighted least squares with exponential forgetting,
so that it follows a machine that gets slower or faster.

Plain values; nothing waits here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from penstock.batcher.queue.requests import WorkItem
from penstock.batcher.settings import KnobsSection

INITIAL_LIMIT = 4
MAX_LIMIT = 256.0
SMOOTHING = 0.2
"""Share of the way to its new value that the limit moves with each sample."""
LONG_TERM_WEIGHT = 1 / 300
"""Weight of a new delay in the long-term one, an average over about 600 samples."""
FALLING_DELAY_FACTOR = 5
"""A delay below the long-term one weighs this many times more: the best delay counts most."""
TOLERANCE = 1.5
"""Present delay over the long-term one that is not yet taken for queueing."""
OVERLOAD_FACTOR = 0.7

FORGETTING_FACTOR = 0.98
"""Weight that earlier batches keep with each new one."""
OVERRUN_RATIO = 1.25
"""A batch that takes this many times what a batch may take halves the rows of the next one."""
TRUSTED_SAMPLES = 16
"""Batches after which the learned cost of a model is believed."""
TRUSTED_FOR_S = 1.0
"""How long after the last batch the learned costs are believed."""


class ConcurrencyLimit(Protocol):
    """How many batches and streams may run at once."""

    @property
    def limit(self) -> int:
        """The number that may run now, at least 1."""
        ...

    def record_delay(self, delay_ms: float, running: int) -> None:
        """Record milliseconds a token of a batch, or to the first token of a stream, that ended
        while `running` were running.
        """
        ...

    def record_overload(self) -> None:
        """Record that the instance answered that it has too much to do."""
        ...


class FixedLimit:
    """The number that the instance declared; 0 means 1."""

    def __init__(self, limit: int) -> None:
        self.limit = max(1, limit)

    def record_delay(self, delay_ms: float, running: int) -> None:
        """Change nothing."""

    def record_overload(self) -> None:
        """Change nothing."""


class GradientLimit:
    """A limit that is learned.

    Delays are per token, or to the first token of a stream, so that long answers do not look like
    overload.
    """

    def __init__(self, initial: int = INITIAL_LIMIT) -> None:
        self._limit = float(max(1, initial))
        self._long_term_ms = 0.0

    @property
    def limit(self) -> int:
        return int(self._limit)

    def record_delay(self, delay_ms: float, running: int) -> None:
        """Move the limit, but only while at least half of it is used, so that a quiet time does
        not raise it.
        """
        if delay_ms <= 0:
            return
        self._average(delay_ms)
        if running < self._limit / 2:
            return
        gradient = max(0.5, min(1.0, TOLERANCE * self._long_term_ms / delay_ms))
        target = self._limit * gradient + math.sqrt(self._limit)
        smoothed = self._limit + SMOOTHING * (target - self._limit)
        self._limit = max(1.0, min(MAX_LIMIT, smoothed))

    def _average(self, delay_ms: float) -> None:
        if not self._long_term_ms:
            self._long_term_ms = delay_ms
        self._long_term_ms += LONG_TERM_WEIGHT * (delay_ms - self._long_term_ms)
        if delay_ms < self._long_term_ms:
            weight = FALLING_DELAY_FACTOR * LONG_TERM_WEIGHT
            self._long_term_ms += weight * (delay_ms - self._long_term_ms)

    def record_overload(self) -> None:
        """Cut the limit at once."""
        self._limit = max(1.0, self._limit * OVERLOAD_FACTOR)


class CostModel:
    """The cost of batches of one model at one instance; both terms stay at or above 0."""

    def __init__(self, base_ms: float = 1.0, per_token_ms: float = 0.1) -> None:
        self.base_ms = base_ms
        self.per_token_ms = per_token_ms
        self.samples = 0
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)
        """Weight, x, y, x², and x·y, where x is padded tokens and y milliseconds."""

    def predict_ms(self, rows: int, longest_tokens: int) -> float:
        """Milliseconds of a batch of `rows` padded to `longest_tokens`."""
        return self.base_ms + self.per_token_ms * rows * longest_tokens

    def learn(self, rows: int, longest_tokens: int, took_ms: float) -> None:
        """Learn from a batch that ran for `took_ms`."""
        x = float(rows * longest_tokens)
        weight, sx, sy, sxx, sxy = (total * FORGETTING_FACTOR for total in self._sums)
        weight += 1
        sx += x
        sy += took_ms
        sxx += x * x
        sxy += x * took_ms
        self._sums = (weight, sx, sy, sxx, sxy)
        self.samples += 1
        spread = weight * sxx - sx * sx
        if spread > 1e-6 * weight * sxx:
            self.per_token_ms = max(0.0, (weight * sxy - sx * sy) / spread)
            self.base_ms = max(0.0, (sy - self.per_token_ms * sx) / weight)
        elif sxx > 0:
            # All batches had one size, which says nothing of the base; keep it.
            self.per_token_ms = max(0.0, (sxy - self.base_ms * sx) / sxx)


@dataclass(slots=True)
class RowLimits:
    """Rows that the next batch of each model may have: additive increase, multiplicative decrease.

    A batch that ran over its time halves them, and each one that did not adds a row.
    """

    rows: dict[str, float] = field(default_factory=dict)

    def rows_for(self, model: str, max_rows: int) -> int:
        """Rows of the model's next batch, `max_rows` at most."""
        return min(max_rows, int(self.rows.get(model, max_rows)))

    def record_batch(self, model: str, rows: int, time_ratio: float, max_rows: int) -> None:
        """Record a batch of `rows` that took `time_ratio` times what a batch may take."""
        if rows > 1 and time_ratio > OVERRUN_RATIO:
            self.rows[model] = max(1.0, rows / 2)
        elif model in self.rows:
            self.rows[model] = min(float(max_rows), self.rows[model] + 1.0)


class InstanceProfile:
    """How much an instance takes at once, and by model the cost and the largest size of batches."""

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self.limit = limit
        self.costs: dict[str, CostModel] = {}
        self.row_limits = RowLimits()
        self._learned_at_s = -math.inf

    def cost(self, model: str) -> CostModel:
        """The cost model of a model; a first guess before its first batch."""
        cost = self.costs.get(model)
        if cost is None:
            cost = self.costs[model] = CostModel()
        return cost

    def is_cost_trusted(self, model: str, now: float) -> bool:
        """Whether a prediction may be used to refuse a request: it has enough samples, and is not
        so old that the instance may have changed since.
        """
        is_old = now - self._learned_at_s >= TRUSTED_FOR_S
        return self.cost(model).samples >= TRUSTED_SAMPLES and not is_old

    def predict_wait_ms(self, tokens: Mapping[str, float]) -> float:
        """Milliseconds until a slot is free for a new request, behind these tokens by model."""
        work_ms = sum(self.cost(model).per_token_ms * count for model, count in tokens.items())
        return work_ms / self.limit.limit

    def record_batch(
        self,
        items: Sequence[WorkItem],
        took_ms: float,
        running: int,
        knobs: KnobsSection,
        now: float,
    ) -> None:
        """Learn from a batch that was answered: `took_ms`, with `running` at the instance."""
        model = items[0].model
        rows = sum(item.rows for item in items)
        self._learned_at_s = now
        self.cost(model).learn(rows, max(item.tokens_per_row for item in items), took_ms)
        self.limit.record_delay(took_ms / sum(item.tokens for item in items), running)
        if knobs.max_batch_ms:
            time_ratio = took_ms / knobs.max_batch_ms
            self.row_limits.record_batch(model, rows, time_ratio, knobs.max_batch_size)
