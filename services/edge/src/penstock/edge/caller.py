"""Who calls: the one key of a request, and how many requests it may have at once. Pure but for
`KeyLimits`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from penstock.edge.http_exchange import HttpExchange
from penstock.edge.wire import Failure, FailureKind

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


class KeyLimits:
    """How many requests each key has in flight."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._in_flight: dict[str, int] = {}

    @contextmanager
    def counted(self, key: str) -> Iterator[None]:
        """Count a request of a key.

        Raises:
            Refused: it has too many in flight.
        """
        count = self._in_flight.get(key, 0)
        if count >= self._most:
            message = f"the key has {count} requests in flight; wait for one of them to end"
            raise Refused(Failure(FailureKind.RATE_LIMITED, message, retry_after_s=1.0))
        self._in_flight[key] = count + 1
        try:
            yield
        finally:
            left = self._in_flight[key] - 1
            if left:
                self._in_flight[key] = left
            else:
                del self._in_flight[key]
