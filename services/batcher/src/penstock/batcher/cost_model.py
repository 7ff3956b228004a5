"""What a batch costs in milliseconds, learned from the batches that ran.

The model is t = base + per_token · rows · longest: a fixed part, and a part that grows with the
padded size of the batch, its rows times the tokens of its longest row. One line covers both kinds
of hardware: a CPU, where padding costs, and a GPU, where a batch costs nearly the same however full
it is. The line is fitted by weighted least squares with exponential forgetting, so that it follows
a machine that gets slower or faster.

Plain values; nothing waits here.
"""

from __future__ import annotations

FORGETTING_FACTOR = 0.98
"""Weight that earlier batches keep with each new one."""


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
