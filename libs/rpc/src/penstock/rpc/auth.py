"""Who calls an internal port: the token that services share, and the context that comes with it."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping

from google.protobuf.message import DecodeError
from penstock.api.common.v1 import common_pb2
from penstock.rpc.call import Call
from penstock.rpc.errors import invalid, unauthenticated
from penstock.service.clock import Clock, SystemClock

TOKEN_KEY = "penstock-token"
CONTEXT_KEY = "penstock-context-bin"

Metadata = Mapping[str, str | bytes]
Authenticator = Callable[[Metadata], Call | Awaitable[Call]]
"""Makes the Call of whoever sent this metadata, or raises UNAUTHENTICATED."""


def holds_token(metadata: Metadata, token: str) -> bool:
    """Whether the metadata has the internal token, compared in constant time; an empty one is never
    held.
    """
    given = metadata.get(TOKEN_KEY, "")
    packed = given.encode() if isinstance(given, str) else given
    return bool(token) and hmac.compare_digest(packed, token.encode())


def internal(token: str, clock: Clock | None = None) -> Authenticator:
    """An authenticator for callers that hold the internal token, compared in constant time; the
    context that comes with the call is believed.
    """
    ticking = clock or SystemClock()

    def authenticate(metadata: Metadata) -> Call:
        if not holds_token(metadata, token):
            raise unauthenticated("this port is internal; it needs the internal token")
        packed = metadata.get(CONTEXT_KEY)
        if packed is None:
            return Call()
        try:
            context = common_pb2.CallContext.FromString(
                packed if isinstance(packed, bytes) else packed.encode()
            )
        except DecodeError:
            raise invalid(CONTEXT_KEY, "is not a CallContext") from None
        return Call.from_context(context, ticking.monotonic())

    return authenticate
