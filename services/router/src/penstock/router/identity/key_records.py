"""API keys of the store: their texts, the hashes that are kept of them, and when one is accepted.

A key's text is `psk_ID_SECRET`. The secret has 256 random bits. Kept is HMAC-SHA-256 of the text
under a secret of the deployment, so whoever reads the store can neither use nor verify a key.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
from dataclasses import dataclass

from penstock.api.router.v1 import keys_pb2 as pb
from penstock.router.identity.grants import Grant, Scope
from penstock.rpc.call import Principal
from penstock.service.purity import pure
from penstock.tasks.kinds import NAMES

TEXT = re.compile(r"psk_(?P<id>[0-9a-f]{24})_[A-Za-z0-9_-]{43}")
NO_HASH = bytes(32)
"""What an unknown key is compared with, so that it takes as long as a known one."""


def new_id() -> str:
    """An identifier of 96 random bits."""
    return secrets.token_hex(12)


def new_text(key_id: str) -> str:
    """Another text for a key."""
    return f"psk_{key_id}_{secrets.token_urlsafe(32)}"


@pure
def id_in(text: str) -> str | None:
    """The identifier in a key's text; None where it is no text of this form."""
    found = TEXT.fullmatch(text)
    return found["id"] if found else None


@pure
def keyed_hash(secret: bytes, text: str) -> bytes:
    """What is kept of a key's text."""
    return hmac.digest(secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as the store keeps it."""

    key: pb.Key
    current_hash: bytes
    earlier_hash: bytes = b""
    """Of the text before the latest rotation; accepted until `key.overlap_ends_unix_ms`."""


@pure
def is_ended(key: pb.Key, now_unix_ms: float) -> bool:
    """Whether a key is revoked or expired."""
    return bool(key.revoked_unix_ms) or 0 < key.expires_unix_ms <= now_unix_ms


@pure
def ends_by_itself(key: pb.Key) -> bool:
    """Whether a key, or its text before a rotation, is accepted for a time only."""
    return not key.revoked_unix_ms and (key.expires_unix_ms > 0 or key.overlap_ends_unix_ms > 0)


@pure
def accepts(record: KeyRecord | None, given_hash: bytes, now_unix_ms: float) -> bool:
    """Whether a hash is that of a text in force. Every comparison takes constant time, and all are
    made whatever the outcome.
    """
    current = record.current_hash if record else NO_HASH
    earlier = record.earlier_hash if record and record.earlier_hash else NO_HASH
    is_current = hmac.compare_digest(given_hash, current)
    is_earlier = hmac.compare_digest(given_hash, earlier)
    if record is None or is_ended(record.key, now_unix_ms):
        return False
    return is_current or (is_earlier and now_unix_ms < record.key.overlap_ends_unix_ms)


@pure
def grant_of(key: pb.Key) -> Grant:
    """What a key permits."""
    scope = key.scope
    who = Principal(scope.organisation, scope.team, scope.user, key.id, tuple(scope.tags))
    kinds = frozenset(NAMES[number] for number in scope.tasks)
    expires_s = key.expires_unix_ms / 1e3 if key.expires_unix_ms else math.inf
    return Grant(who, scope.priority_ceiling, Scope(tuple(scope.models), kinds), expires_s)
