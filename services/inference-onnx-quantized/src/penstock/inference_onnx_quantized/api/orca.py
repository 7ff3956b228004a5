"""The load report of the Open Request Cost Aggregation standard (ORCA), sent in a gRPC trailer."""

from __future__ import annotations

import math
from collections.abc import Callable

from penstock.api.common.v1 import common_pb2
from penstock.api.orca import orca_load_report_pb2 as orca
from penstock.service.clock import Clock

TRAILER = "endpoint-load-metrics-bin"
MAX_AGE_S = 0.01
"""How long a report is sent again: making one costs as much as parsing a request."""

Trailer = tuple[tuple[str, bytes], ...]


class LoadTrailer:
    """The trailing metadata with the instance's load, at most `MAX_AGE_S` old."""

    def __init__(self, report: Callable[[], common_pb2.LoadReport], clock: Clock) -> None:
        self._report = report
        self._clock = clock
        self._made_at_s = -math.inf
        self._trailer: Trailer = ()

    def current(self) -> Trailer:
        """The trailer to send now."""
        now = self._clock.monotonic()
        if now >= self._made_at_s + MAX_AGE_S:
            self._made_at_s = now
            self._trailer = ((TRAILER, orca_report(self._report()).SerializeToString()),)
        return self._trailer


def orca_report(load: common_pb2.LoadReport) -> orca.OrcaLoadReport:
    """A load report in ORCA's terms; `batch_fill` is the share of compute slots with a request."""
    return orca.OrcaLoadReport(
        application_utilization=load.utilization,
        utilization={"batch_fill": min(1.0, load.in_flight / max(1, load.concurrency))},
        named_metrics={
            "in_flight": load.in_flight,
            "queued": load.queued,
            "concurrency": load.concurrency,
            "service_ms": load.service_ms,
        },
    )
