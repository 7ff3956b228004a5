"""What one caller may have in flight at a public port, over all of its connections.

Without a bound one key could fill the memory of the process that serves everybody: with calls that
wait, with what they carry, with streams. The bounds are generous for callers who wait for answers,
and hold before a call is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from penstock.rpc.errors import exhausted
from penstock.rpc.slow_readers import SLOW_READER_S
from penstock.service.large_blocks import LARGE_BYTES, collect_soon

RETRY_AFTER_S = 0.1


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """Bounds for each key."""

    calls: int = 1024
    """Calls and items in flight."""
    request_bytes: int = 6 << 20
    """Bytes of their requests, together."""
    receiving: int = 2
    """Requests of plain calls that are being received."""
    streams: int = 64
    """Item streams."""
    takes_parts: bool = False
    """Whether a request may exceed a message and come in parts."""
    slow_reader_s: float = SLOW_READER_S
    """How long the reader of a stream may take nothing while something waits to be taken."""


DEFAULT_LIMITS = CallerLimits()


class CallerShare:
    """What one caller has in flight."""

    __slots__ = ("_limits", "caller", "calls", "holders", "receiving", "request_bytes", "streams")

    def __init__(self, limits: CallerLimits, caller: str = "") -> None:
        self._limits = limits
        self.caller = caller
        self.calls = self.request_bytes = self.streams = 0
        self.receiving = asyncio.Semaphore(limits.receiving)
        """Held while a request is being received."""
        self.holders = 0
        """Calls and streams that refer to this share."""

    @property
    def takes_parts(self) -> bool:
        """Whether a request may exceed a message and come in parts."""
        return self._limits.takes_parts

    def begin(self, request_bytes: int) -> None:
        """Count a call, which must `end`.

        Raises:
            Fault: RESOURCE_EXHAUSTED.
        """
        limits = self._limits
        if self.calls >= limits.calls:
            message = f"this key has {self.calls} calls in flight, the most that one key may have"
            raise exhausted(message, retry_after_s=RETRY_AFTER_S)
        if self.calls and self.request_bytes + request_bytes > limits.request_bytes:
            message = (
                f"this key's requests in flight have {self.request_bytes} bytes; with this one "
                f"they would exceed {limits.request_bytes}"
            )
            raise exhausted(message, retry_after_s=RETRY_AFTER_S)
        self.calls += 1
        self.request_bytes += request_bytes

    def end(self, request_bytes: int) -> None:
        """A call has ended."""
        self.calls -= 1
        self.request_bytes -= request_bytes
        if request_bytes >= LARGE_BYTES:
            collect_soon()

    @contextmanager
    def stream(self) -> Iterator[None]:
        """An item stream while the block runs.

        Raises:
            Fault: RESOURCE_EXHAUSTED.
        """
        if self.streams >= self._limits.streams:
            message = f"this key has {self.streams} item streams, the most that one key may have"
            raise exhausted(message, retry_after_s=RETRY_AFTER_S)
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1


class Callers:
    """The shares of all callers that have something in flight."""

    def __init__(self, limits: CallerLimits) -> None:
        self._limits = limits
        self._shares: dict[str, CallerShare] = {}

    def __len__(self) -> int:
        return len(self._shares)

    def join(self, caller: str) -> CallerShare:
        """A caller's share, for a call or a stream, which must `leave` it."""
        share = self._shares.get(caller)
        if share is None:
            share = self._shares[caller] = CallerShare(self._limits, caller)
        share.holders += 1
        return share

    def leave(self, share: CallerShare) -> None:
        """A call or a stream has ended; the share of a caller without any is forgotten."""
        share.holders -= 1
        if not share.holders:
            del self._shares[share.caller]


UNBOUNDED = 1 << 60
UNLIMITED = CallerShare(CallerLimits(UNBOUNDED, UNBOUNDED, UNBOUNDED, UNBOUNDED, takes_parts=True))
"""Of services among each other, which call without bound; an HTTP edge bounds its own callers."""
