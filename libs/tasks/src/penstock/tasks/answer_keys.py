"""Keys of reusable answers, and the tenants that may share them: one form for the cache and its
callers.

A key is a keyed hash of all that an answer may depend on, so that equal keys mean equal requests
and nobody can guess the key of another tenant's request.
"""

from __future__ import annotations

import functools
import hashlib

from penstock.rpc.call import Principal

KEY_BYTES = 16
FINGERPRINT_BYTES = 8
"""The leading bytes of a key by which callers know whether the cache may have an answer."""
KNOWN_MISS_RULE = "miss: known not to be kept"
"""The rule of a miss without a look-up, in receipts and counters."""
TENANT_SEPARATOR = "\x1f"
REMEMBERED_KEYS, REMEMBERED_BYTES = 1_024, 1_024
"""Keys of the latest tasks that are remembered, and how long such a task is at most: in one process
a router and a cache ask for the key of the same task within a fraction of a second.
"""
FORMAT = b"2"
"""Version of the keys' canonical form: entries stored under another version are not found."""


def tenant_of(principal: Principal) -> str:
    """The tenant of a principal: callers of the same organisation, team and tags share answers."""
    return TENANT_SEPARATOR.join((principal.organisation, principal.team, *sorted(principal.tags)))


def covers(principal: Principal, tenant: str) -> bool:
    """Whether figures of a tenant are a principal's.

    A principal with a team or tags covers its own tenant, one of an organisation alone all tenants
    of that organisation, and an empty one everybody.
    """
    if not principal.organisation:
        return True
    if principal.team or principal.tags:
        return tenant == tenant_of(principal)
    return tenant.partition(TENANT_SEPARATOR)[0] == principal.organisation


def keyed_hash(secret: bytes, *parts: bytes) -> str:
    """BLAKE2b (RFC 7693) of the parts under a secret, in hexadecimal.

    Each part is preceded by its length, so that different parts never make the same input.
    """
    digest = hashlib.blake2b(key=secret[:64], digest_size=KEY_BYTES)
    for part in (FORMAT, *parts):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def key_salt(secret: bytes) -> bytes:
    """The salt for `exact_key`, derived from the cache's secret.

    Callers may know it: it reveals nothing else that the secret protects.
    """
    return bytes.fromhex(keyed_hash(secret, b"exact"))


def exact_key(
    salt: bytes, tenant: str, namespace: str, model: str, context: bytes, task: bytes
) -> str:
    """The key of a request: the hash of everything that its answer may depend on.

    Args:
        salt: from `key_salt`.
        tenant: from `tenant_of`.
        namespace: the caller's own division of its tenant; empty for the default one.
        model: name and revision.
        context: digest of what the answer depends on and the task does not hold; empty for none.
        task: the task in deterministic serialisation.
    """
    make = _remembered_key if len(task) <= REMEMBERED_BYTES else _made_key
    return make(salt, tenant, namespace, model, context, task)


def _made_key(
    salt: bytes, tenant: str, namespace: str, model: str, context: bytes, task: bytes
) -> str:
    return keyed_hash(salt, tenant.encode(), namespace.encode(), model.encode(), context, task)


_remembered_key = functools.lru_cache(REMEMBERED_KEYS)(_made_key)
