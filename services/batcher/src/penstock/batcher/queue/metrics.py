"""What a queue reports about itself."""

from __future__ import annotations

from typing import Protocol


class QueueMetrics(Protocol):
    """Records what happens in a queue; must return at once."""

    def record_drop(self, reason: str) -> None:
        """Record a request that was refused or dropped: "deadline" (it could not begin in time),
        "timeout" (it expired in the queue) or "queue_full".
        """
        ...

    def record_padding(self, waste: float) -> None:
        """Record the share of a new batch that is padding, 0 to 1."""
        ...


class NoQueueMetrics:
    """Records nothing."""

    def record_drop(self, reason: str) -> None:
        return None

    def record_padding(self, waste: float) -> None:
        return None


NO_METRICS = NoQueueMetrics()
