"""What one service has recorded and not exported yet: ended spans, durations, accounts.

Spans write here on the event loop; the exporter's thread takes from here. Nothing is locked: the
operations of `deque` that are used are atomic, and a count that is read while it changes is right
at the next export.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from penstock.otel.counts import Accounts, DurationHistograms
from penstock.rpc.call import Call
from penstock.rpc.spans import Attributes

if TYPE_CHECKING:
    from penstock.api.common.v1 import common_pb2


class EndedSpan(NamedTuple):
    """A span that has ended and waits for export; times in nanoseconds of `perf_counter_ns`."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty for the root of a trace."""
    name: str
    kind: str
    """`internal`, `server` or `client`."""
    start_ns: int
    end_ns: int
    code: str
    """Name of the gRPC code it failed with; empty when it did not fail."""
    reason: str
    """Stable reason beside the code; empty when there is none."""
    kept_because: str
    """`error` or `slow` for a span of a trace that is not sampled; empty for a sampled one."""
    attributes: Attributes | None
    call: Call


class Recorder:
    """Queues ended spans and counts every call, sampled or not.

    Args:
        max_queued_spans: ended spans that may wait for export; more are dropped and counted.
        slow_s: a span that took longer is exported even when its trace is not sampled.
        rng: source of span identifiers.
    """

    def __init__(self, max_queued_spans: int, slow_s: float, rng: random.Random) -> None:
        self.max_queued_spans = max_queued_spans
        self.slow_ns = int(slow_s * 1e9)
        self.rng = rng
        self.is_exporting = False
        """False where there is no receiver: spans are then counted as dropped."""
        self.ended_spans: deque[EndedSpan] = deque()
        self.dropped_spans = 0
        self.durations = DurationHistograms()
        self.accounts = Accounts()

    def record(self, ended: EndedSpan) -> None:
        """Queue an ended span for export, or count it as dropped when it cannot be exported."""
        if not self.is_exporting or len(self.ended_spans) >= self.max_queued_spans:
            self.dropped_spans += 1
        else:
            self.ended_spans.append(ended)

    def count_receipt(self, call: Call, receipt: common_pb2.Receipt) -> None:
        """Add a call's cost, tokens and savings to the accounts, where they are exported."""
        if self.is_exporting:
            self.accounts.add(call, receipt)
