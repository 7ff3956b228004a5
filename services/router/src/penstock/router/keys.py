"""API keys at the public door: a hash looked up, a principal given.

Keys themselves are never kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from penstock.api.common.v1 import common_pb2
from penstock.router.settings import KeySection
from penstock.rpc.auth import Metadata
from penstock.rpc.call import PRIORITIES, Call, Principal
from penstock.rpc.errors import unauthenticated

HELP = "send metadata `authorization: Bearer KEY`"


def digest(key: str) -> str:
    """What the configuration file keeps of a key: its SHA-256 in hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class KeyRing:
    """The keys in force.

    A key is found by its digest, so the time of a look-up tells nothing of it.
    """

    def __init__(self, keys: Sequence[KeySection]) -> None:
        self.replace(keys)

    def replace(self, keys: Sequence[KeySection]) -> None:
        """Put new keys in force."""
        self._principals = {
            key.sha256: Principal(key.organisation, key.team, key.user, key.id, key.tags)
            for key in keys
        }
        self._ceilings = {key.id: int(PRIORITIES[key.priority_ceiling]) for key in keys}

    def authenticate(self, metadata: Metadata) -> Call:
        """The Call of whoever sent this metadata; whether its traceparent is one is found out where
        the first span begins.

        Raises:
            Fault: UNAUTHENTICATED without a known key.
        """
        header = metadata.get("authorization", "")
        scheme, _, key = (header if isinstance(header, str) else "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise unauthenticated(f"no API key; {HELP}")
        principal = self._principals.get(digest(key.strip()))
        if principal is None:
            raise unauthenticated(f"the API key is not known; {HELP}")
        parent = metadata.get("traceparent", "")
        return Call(principal, traceparent=parent if isinstance(parent, str) else "")

    def capped(self, principal: Principal, priority: int) -> int:
        """The priority that a caller gets: what it asks for, at most its key's ceiling."""
        asked = priority or int(common_pb2.PRIORITY_NORMAL)
        return min(asked, self._ceilings.get(principal.key_id, int(common_pb2.PRIORITY_CRITICAL)))
