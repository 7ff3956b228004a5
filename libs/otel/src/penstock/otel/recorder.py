"""What has been recorded and waits to be sent: ended spans, durations, accounts.

Plain state, shared by recorder and exporter.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.otel.counts import Accounts, Durations
from penstock.rpc.call import Call
from penstock.rpc.spans import Attributes


class EndedSpan(NamedTuple):
    """A span that has ended, as it waits in the ring for the exporter.

    Times are perf_counter nanoseconds.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    code: str
    reason: str
    kept: str
    attributes: Attributes | None
    call: Call


@dataclass
class Recorded:
    """The records of one service. The event loop writes, the exporter's thread takes."""

    service: str
    instance: str
    endpoint: str
    max_queued_spans: int
    """Ended spans that wait for export at most."""
    ring: deque[EndedSpan] = field(default_factory=deque)
    dropped: int = 0
    """Spans that were lost: the ring was full, or nothing took them."""
    durations: Durations = field(default_factory=Durations)
    accounts: Accounts = field(default_factory=Accounts)
