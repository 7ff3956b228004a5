"""What is learned about one instance from the batches that ran on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from penstock.batcher.batch_formation import RowLimits, tokens_per_row
from penstock.batcher.concurrency import ConcurrencyLimit
from penstock.batcher.cost_model import CostModel
from penstock.batcher.settings import KnobsSection
from penstock.batcher.work_item import WorkItem

TRUSTED_SAMPLES = 16
"""Batches after which the learned cost of a model is believed."""
TRUSTED_FOR_S = 1.0
"""How long after the last batch the learned costs are believed."""


class InstanceProfile:
    """How much an instance takes at once, and by model the cost and the largest size of batches."""

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self.limit = limit
        self.costs: dict[str, CostModel] = {}
        self.row_limits = RowLimits()
        self._learned_at_s = -math.inf

    def cost(self, model: str) -> CostModel:
        """The cost model of a model; a first guess before its first batch."""
        return self.costs.setdefault(model, CostModel())

    def is_cost_trusted(self, model: str, now: float) -> bool:
        """Whether a prediction may be used to refuse a request: it has enough samples, and is not
        so old that the instance may have changed since.
        """
        is_old = now - self._learned_at_s >= TRUSTED_FOR_S
        return self.cost(model).samples >= TRUSTED_SAMPLES and not is_old

    def predict_wait_ms(self, tokens: Mapping[str, int]) -> float:
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
        self.cost(model).learn(rows, max(map(tokens_per_row, items)), took_ms)
        self.limit.record_delay(took_ms / sum(item.tokens for item in items), running)
        if knobs.max_batch_ms:
            time_ratio = took_ms / knobs.max_batch_ms
            self.row_limits.record_batch(model, rows, time_ratio, knobs.max_batch_size)
