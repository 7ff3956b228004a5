"""Which entries an invalidation means: those that match everything it says."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.adapters import Entries
from penstock.core.errors import invalid

NAMESPACE = "\x1fnamespace:"
"""The tag of a namespace begins with it: no caller's tag does."""


def tags_of(tags: Sequence[str], scope: pb.Scope) -> tuple[str, ...]:
    """The caller's tags, and the one of the namespace."""
    return (*tags, f"{NAMESPACE}{scope.namespace}") if scope.namespace else tuple(tags)


async def matching(entries: Entries, tenant: str, request: pb.InvalidateRequest) -> set[str]:
    """Keys of a tenant's entries that every field of the request names. Raises INVALID_ARGUMENT for what cannot be told from entries."""
    groups: list[set[str]] = []
    if request.entry_ids:
        groups.append(set(request.entry_ids))
    if request.tags:
        groups.append(set().union(*[await entries.members(tenant, f"t:{tag}") for tag in request.tags]))
    models = {model.partition("@")[0] for model in (request.model, request.scope.model) if model}
    groups += [await entries.members(tenant, f"m:{model}") for model in models]
    if request.scope.namespace:
        groups.append(await entries.members(tenant, f"t:{NAMESPACE}{request.scope.namespace}"))
    if request.scope.context_sha256:
        raise invalid("scope.context_sha256", "cannot be told from an entry: name the namespace, the model or tags")
    if not groups:
        raise invalid("entry_ids", "say at least one of entry_ids, tags, scope and model")
    keys = set.intersection(*groups)
    if "@" in request.scope.model:  # this revision alone
        found = {key: await entries.get(tenant, key, 0, 0) for key in keys}
        keys = {key for key, entry in found.items() if entry is not None and entry.model == request.scope.model}
    return keys
