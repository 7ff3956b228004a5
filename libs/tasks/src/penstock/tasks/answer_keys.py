"""Keys of answers that may be reused: all that an answer may depend on, hashed under a secret.

One form for the cache and its callers.
"""

from __future__ import annotations

import hashlib

from penstock.rpc.call import Principal

KEY_BYTES = 16
FINGERPRINT_BYTES = 8
"""So much of a key tells callers whether it may have an answer."""
KNOWN_MISS_RULE = "miss: known not to be kept"
"""The rule of a miss that no look-up was spent on, in receipts and counters."""
STALE_RULE = "exact: stale"
"""How the rule begins of an answer that is served past its time while a new one is fetched."""
TENANT_SEPARATOR = "\x1f"
FORMAT = b"2"
"""Version of the canonical form: a change of it leaves old entries unfound."""


def tenant_of(principal: Principal) -> str:
    """Who may share answers: callers of one organisation, team and set of tags."""
    return TENANT_SEPARATOR.join((principal.organisation, principal.team, *sorted(principal.tags)))


def keyed_hash(secret: bytes, *parts: bytes) -> str:
    """BLAKE2b (RFC 7693) under a secret, over parts of unambiguous length, so that keys cannot be
    guessed across tenants.
    """
    digest = hashlib.blake2b(key=secret[:64], digest_size=KEY_BYTES)
    for part in (FORMAT, *parts):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def key_salt(secret: bytes) -> bytes:
    """What `exact_key` wants of a secret: callers may know it, and learn nothing else that the
    secret protects.
    """
    return bytes.fromhex(keyed_hash(secret, b"exact"))


def exact_key(
    salt: bytes, tenant: str, namespace: str, model: str, context: bytes, task: bytes
) -> str:
    """The key of a request: everything that the answer may depend on.

    Args:
        salt: from `key_salt`.
        model: name and revision.
        context: digest of the surroundings that are not part of the task; empty for none.
        task: the task in deterministic serialisation.
    """
    return keyed_hash(salt, tenant.encode(), namespace.encode(), model.encode(), context, task)
