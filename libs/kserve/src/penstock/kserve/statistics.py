"""What was answered for one model and version, in the terms of Triton's statistics.

Given the time, never reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.api.kserve import inference_pb2 as kserve


@dataclass
class ModelCounts:
    """Sums since the model's first request: requests, rows, and nanoseconds."""

    requests: int = 0
    rows: int = 0
    request_ns: int = 0
    failures: int = 0
    failure_ns: int = 0
    queue_ns: int = 0
    compute_ns: int = 0
    last_ms: int = 0

    def record_success(self, rows: int, total_s: float, compute_s: float, now_ms: int) -> None:
        """Record an answered request; the time that it did not compute counts as queueing."""
        self.requests += 1
        self.rows += rows
        self.request_ns += round(total_s * 1e9)
        self.compute_ns += round(compute_s * 1e9)
        self.queue_ns += round(max(0.0, total_s - compute_s) * 1e9)
        self.last_ms = now_ms

    def record_failure(self, total_s: float) -> None:
        """Record a request that was refused or failed."""
        self.failures += 1
        self.failure_ns += round(total_s * 1e9)

    def to_proto(self, name: str, version: str) -> kserve.ModelStatistics:
        """The statistics as the protocol has them."""
        duration = kserve.StatisticDuration
        return kserve.ModelStatistics(
            name=name,
            version=version,
            last_inference=self.last_ms,
            inference_count=self.rows,
            execution_count=self.requests,
            inference_stats=kserve.InferStatistics(
                success=duration(count=self.requests, ns=self.request_ns),
                fail=duration(count=self.failures, ns=self.failure_ns),
                queue=duration(count=self.requests, ns=self.queue_ns),
                compute_infer=duration(count=self.requests, ns=self.compute_ns),
            ),
        )
