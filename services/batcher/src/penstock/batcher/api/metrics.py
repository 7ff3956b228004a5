"""The batcher's metrics, recorded through OpenTelemetry."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.api.common.v1 import common_pb2
from penstock.batcher.queue.instance_queue import InstanceQueue
from penstock.batcher.queue.knobs import PRIORITY_NAMES
from penstock.otel.telemetry import Telemetry
from penstock.service.clock import Clock


class BatcherMetrics:
    """Histograms and counters of what the queues report, and gauges of what waits in them."""

    def __init__(
        self, telemetry: Telemetry, clock: Clock, queues: Callable[[], Sequence[InstanceQueue]]
    ) -> None:
        self._clock = clock
        self._queues = queues
        self._queue_wait = telemetry.histogram(
            "penstock.batcher.queue_wait", "ms", "Time that requests waited in the queue"
        )
        self._batch_size = telemetry.histogram(
            "penstock.batcher.batch_size", "{row}", "Rows of the batch that served a request"
        )
        self._padding = telemetry.histogram(
            "penstock.batcher.padding_waste", "1", "Share of a padded batch that is padding"
        )
        self._drops = telemetry.counter(
            "penstock.batcher.dropped", "{member}", "Requests refused or dropped, by reason"
        )
        for priority, name in PRIORITY_NAMES.items():
            self._add_gauges(telemetry, priority, name)

    def record_answer(self, receipt: common_pb2.BatchReceipt) -> None:
        """Record how a request was served."""
        self._queue_wait.record(receipt.queued_ms)
        self._batch_size.record(receipt.batch_size)

    def record_drop(self, reason: str) -> None:
        """See `QueueMetrics`."""
        self._drops.add(1, {"reason": reason})

    def record_padding(self, waste: float) -> None:
        """See `QueueMetrics`."""
        self._padding.record(waste)

    def _add_gauges(self, telemetry: Telemetry, priority: int, name: str) -> None:
        telemetry.gauge(
            f"penstock.batcher.depth.{name}",
            "{row}",
            f"Rows waiting with priority {name}",
            lambda: self._depth(priority),
        )
        telemetry.gauge(
            f"penstock.batcher.oldest_age.{name}",
            "s",
            f"Age of the oldest row with priority {name}",
            lambda: self._oldest_age_s(priority),
        )

    def _depth(self, priority: int) -> float:
        return float(sum(queue.waiting.rows(priority) for queue in self._queues()))

    def _oldest_age_s(self, priority: int) -> float:
        now = self._clock.monotonic()
        arrivals = [queue.waiting.oldest_arrival_s(priority) for queue in self._queues()]
        return max((now - arrived for arrived in arrivals if arrived is not None), default=0.0)
