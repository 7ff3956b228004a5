"""Callers with an API key that are a service of ours, such as an HTTP edge: what they translated is
believed to say what its origin says.
"""

from __future__ import annotations

from collections.abc import Awaitable

from penstock.rpc.auth import Authenticator, Metadata, holds_token
from penstock.rpc.call import Call


def marking_services(authenticate: Authenticator, token: str) -> Authenticator:
    """The authenticator, which also notes whether a caller presents the internal token."""

    def marking(metadata: Metadata) -> Call | Awaitable[Call]:
        made = authenticate(metadata)
        if not holds_token(metadata, token):
            return made
        return _marked(made) if isinstance(made, Call) else _marked_later(made)

    return marking


def _marked(call: Call) -> Call:
    return call._replace(is_translated=True)


async def _marked_later(made: Awaitable[Call]) -> Call:
    return _marked(await made)
