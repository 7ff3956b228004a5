"""Which entries an invalidation means: those that match everything it says."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.storage.entry_store import EntryStore
from penstock.rpc.errors import invalid

NAMESPACE = "\x1fnamespace:"
"""The tag of a namespace begins with it: no caller's tag does."""
CONTEXT = "\x1fcontext:"
"""The same for the digest of surroundings."""
DIGEST_BYTES = 32


def tags_of(tags: Sequence[str], scope: pb.Scope) -> tuple[str, ...]:
    """The caller's tags, and those of the namespace and the surroundings."""
    return (*tags, *_own(scope))


def _own(scope: pb.Scope) -> list[str]:
    namespace = [f"{NAMESPACE}{scope.namespace}"] if scope.namespace else []
    return namespace + ([f"{CONTEXT}{scope.context_sha256.hex()}"] if scope.context_sha256 else [])


def check(request: pb.InvalidateRequest) -> None:
    """Raise INVALID_ARGUMENT for what names nothing, or not what it says."""
    if request.scope.context_sha256 and len(request.scope.context_sha256) != DIGEST_BYTES:
        raise invalid(
            "scope.context_sha256",
            f"has {len(request.scope.context_sha256)} bytes; a SHA-256 has 32",
        )
    scope = request.scope
    named = (
        request.entry_ids,
        request.tags,
        request.model,
        request.scope_id,
        scope.model,
        *_own(scope),
    )
    if not any(named):
        raise invalid("entry_ids", "say at least one of entry_ids, tags, scope, scope_id and model")


async def matching(entries: EntryStore, tenant: str, request: pb.InvalidateRequest) -> set[str]:
    """Keys of a tenant's entries that every field of the request names."""
    groups: list[set[str]] = []
    if request.entry_ids:
        groups.append(set(request.entry_ids))
    if request.tags:
        groups.append(
            set().union(*[await entries.members(tenant, f"t:{tag}") for tag in request.tags])
        )
    models = {model.partition("@")[0] for model in (request.model, request.scope.model) if model}
    groups += [await entries.members(tenant, f"m:{model}") for model in models]
    groups += [await entries.members(tenant, f"t:{tag}") for tag in _own(request.scope)]
    if request.scope_id:
        groups.append(await entries.members(tenant, f"s:{request.scope_id}"))
    keys = set.intersection(*groups)
    if "@" in request.scope.model:  # this revision alone
        found = {key: await entries.get(tenant, key, 0, 0) for key in keys}
        keys = {
            key
            for key, entry in found.items()
            if entry is not None and entry.model == request.scope.model
        }
    return keys
