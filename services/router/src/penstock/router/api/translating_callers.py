"""Callers with an API key that are a service of ours, such as the HTTP edge: what they translated
is believed to say what its origin says.
"""

from __future__ import annotations

from collections.abc import Awaitable

from google.protobuf.descriptor import ServiceDescriptor
from penstock.rpc.auth import Authenticator, CallerMetadata, service_of
from penstock.rpc.call import Call
from penstock.service.service_tokens import Tokens

TRANSLATORS = frozenset({"edge"})
"""The services that translate."""


def marking_translators(
    authenticate: Authenticator, tokens: Tokens, service: ServiceDescriptor
) -> Authenticator:
    """The authenticator of a service, which also notes whether a translator calls."""

    def marking(metadata: CallerMetadata) -> Call | Awaitable[Call]:
        made = authenticate(metadata)
        if service_of(metadata, tokens, service) not in TRANSLATORS:
            return made
        return _marked(made) if isinstance(made, Call) else _marked_later(made)

    return marking


def _marked(call: Call) -> Call:
    return call._replace(is_translated=True)


async def _marked_later(made: Awaitable[Call]) -> Call:
    return _marked(await made)
