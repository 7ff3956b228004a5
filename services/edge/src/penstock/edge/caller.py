"""Who calls: the one key of a request, and what its requests may hold at once. Pure but for
`KeyLimits`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from penstock.edge.http_exchange import HttpExchange
from penstock.edge.wire import Failure, FailureKind

RETRY_AFTER_S = 1.0
SEND_KEY = "send `authorization: Bearer KEY` or `x-api-key: KEY`"


class Refused(Exception):
    """A request that is refused before any wire reads it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def key_of(exchange: HttpExchange) -> str:
    """The key of a request.

    Raises:
        Refused: there is none, there are two, or it cannot be one.
    """
    if not exchange.keys:
        raise Refused(Failure(FailureKind.UNAUTHENTICATED, f"no API key; {SEND_KEY}"))
    if len(exchange.keys) > 1:
        message = f"two different API keys; {SEND_KEY}, not both"
        raise Refused(Failure(FailureKind.INVALID, message, "authorization"))
    (key,) = exchange.keys
    if not (key.isascii() and key.isprintable()):
        raise Refused(Failure(FailureKind.UNAUTHENTICATED, "the API key is not known"))
    return key


@dataclass(frozen=True)
class Bounds:
    """What requests in flight may hold.

    Attributes:
        calls_per_key: requests of one key.
        bytes_per_key: bytes of their bodies, together.
        bytes_in_all: bytes of the bodies of all keys.
    """

    calls_per_key: int
    bytes_per_key: int
    bytes_in_all: int


class BodyShare:
    """The bytes of one request's body, counted for its key and for the process. Owner: the block
    that counts the request.
    """

    def __init__(self, limits: KeyLimits, key: str) -> None:
        self._limits, self._key = limits, key
        self._bytes = 0

    def grow(self, size: int) -> None:
        """Count a body that has `size` bytes, or is about to have them.

        Raises:
            Refused: bodies in flight have too many.
        """
        if size > self._bytes:
            self._limits.add_bytes(self._key, size - self._bytes)
            self._bytes = size

    def close(self) -> None:
        """The request has ended."""
        self._limits.add_bytes(self._key, -self._bytes)
        self._bytes = 0


class KeyLimits:
    """How many requests each key has in flight, and how many bytes their bodies have."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._in_flight: dict[str, int] = {}
        self._bytes: dict[str, int] = {}
        self._bytes_in_all = 0

    @contextmanager
    def counted(self, key: str) -> Iterator[BodyShare]:
        """Count a request of a key, and its body as it grows.

        Raises:
            Refused: it has too many in flight.
        """
        count = self._in_flight.get(key, 0)
        if count >= self._bounds.calls_per_key:
            message = f"the key has {count} requests in flight; wait for one of them to end"
            raise Refused(Failure(FailureKind.RATE_LIMITED, message, retry_after_s=RETRY_AFTER_S))
        self._in_flight[key] = count + 1
        share = BodyShare(self, key)
        try:
            yield share
        finally:
            share.close()
            _add(self._in_flight, key, -1)

    def add_bytes(self, key: str, size: int) -> None:
        """Count bytes of a body, or, where `size` is negative, count them no more.

        Raises:
            Refused: bodies in flight have too many.
        """
        bounds = self._bounds
        if size > 0 and self._bytes.get(key, 0) + size > bounds.bytes_per_key:
            message = (
                f"the bodies of the key's requests in flight would exceed {bounds.bytes_per_key} "
                "bytes; wait for one of them to end"
            )
            raise Refused(Failure(FailureKind.RATE_LIMITED, message, retry_after_s=RETRY_AFTER_S))
        if size > 0 and self._bytes_in_all + size > bounds.bytes_in_all:
            message = "too many large requests are in flight; send the request again"
            raise Refused(
                Failure(
                    FailureKind.OVERLOADED, message, retry_after_s=RETRY_AFTER_S, may_retry=True
                )
            )
        self._bytes_in_all += size
        _add(self._bytes, key, size)


def _add(counts: dict[str, int], key: str, size: int) -> None:
    """Add to a count; one of zero is forgotten."""
    left = counts.get(key, 0) + size
    if left:
        counts[key] = left
    else:
        counts.pop(key, None)
