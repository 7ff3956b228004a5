"""One item's caller, deadline and trace, as plain values; and how they travel.

No transport lives here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

from penstock.api.common.v1 import common_pb2

NORMAL: int = common_pb2.PRIORITY_NORMAL
PRIORITIES: Mapping[str, common_pb2.Priority] = {
    "low": common_pb2.PRIORITY_LOW,
    "normal": common_pb2.PRIORITY_NORMAL,
    "high": common_pb2.PRIORITY_HIGH,
    "critical": common_pb2.PRIORITY_CRITICAL,
}
"""Priorities as people write them."""
UNBOUNDED_MS = 2**53
"""Sent for a call without a deadline: more milliseconds than anybody waits."""


class Principal(NamedTuple):
    """Who pays, as the router authenticated it.

    A named tuple, because limits, leases and answers are looked up by it several times a call.
    """

    organisation: str
    team: str = ""
    user: str = ""
    key_id: str = ""
    tags: tuple[str, ...] = ()


NOBODY = Principal("")


class Call(NamedTuple):
    """What travels with an item: `deadline_s` is on the monotonic clock of this process, infinite
    for none.

    A named tuple, because several are made for every item of every hop and a frozen dataclass takes
    three times as long to make.
    """

    principal: Principal = NOBODY
    priority: int = NORMAL
    run_id: str = ""
    step: str = ""
    deadline_s: float = math.inf
    traceparent: str = ""
    tracestate: str = ""
    caller: str = ""
    """The service that calls, as an internal port authenticated it; it does not travel on."""
    is_translated: bool = False
    """Whether one of our services translated the request from another protocol; known where it
    arrives, and not sent to the next hop.
    """

    def remaining_s(self, now: float) -> float:
        """Seconds left; 0 or less when the time is up, infinite without a deadline."""
        return self.deadline_s - now

    def to_context(self, now: float) -> common_pb2.CallContext:
        """What is sent to the next hop; the time left is rounded down to a millisecond."""
        context = common_pb2.CallContext()
        self.fill(context, now)
        return context

    def fill(self, context: common_pb2.CallContext, now: float) -> None:
        """Write this call into an empty context; runs once for every item of every hop, so empty
        fields are not touched.
        """
        left_ms = (self.deadline_s - now) * 1000.0
        context.remaining_ms = UNBOUNDED_MS if left_ms >= UNBOUNDED_MS else math.floor(left_ms)
        context.priority = self.priority  # type: ignore[assignment]
        if self.traceparent:
            context.traceparent, context.tracestate = self.traceparent, self.tracestate
        if self.run_id or self.step:
            context.run_id, context.step = self.run_id, self.step
        if self.principal is not NOBODY:
            context.principal.CopyFrom(_message_of(self.principal))

    @classmethod
    def from_context(cls, context: common_pb2.CallContext, now: float) -> Call:
        """What arrived, with its time left counted from `now`."""
        left_ms = context.remaining_ms
        return cls(
            _principal_of(context.principal.SerializeToString())
            if context.HasField("principal")
            else NOBODY,
            context.priority or NORMAL,
            context.run_id,
            context.step,
            math.inf if left_ms >= UNBOUNDED_MS else now + left_ms / 1000.0,
            context.traceparent,
            context.tracestate,
        )


@functools.lru_cache(maxsize=4096)
def _message_of(principal: Principal) -> common_pb2.Principal:
    """A caller's message, made once: callers are few and items many."""
    return common_pb2.Principal(
        organisation=principal.organisation,
        team=principal.team,
        user=principal.user,
        key_id=principal.key_id,
        tags=principal.tags,
    )


@functools.lru_cache(maxsize=4096)
def _principal_of(packed: bytes) -> Principal:
    sent = common_pb2.Principal.FromString(packed)
    return Principal(sent.organisation, sent.team, sent.user, sent.key_id, tuple(sent.tags))
