"""Which entries an invalidation removes: those that match every field set in it."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.cache.storage.entry_store import MODEL_GROUP, SCOPE_GROUP, TAG_GROUP, EntryStore
from penstock.rpc.errors import invalid

NAMESPACE_TAG = "\x1fnamespace:"
CONTEXT_TAG = "\x1fcontext:"
"""Beginnings of the tags by which entries are found by namespace and context digest. No caller's
tag may have the control character.
"""
SHA256_BYTES = 32


def tags_of(tags: Sequence[str], scope: pb.Scope) -> tuple[str, ...]:
    """The caller's tags of an entry, and the cache's own for its namespace and context."""
    return (*tags, *_own_tags(scope))


def check(request: pb.InvalidateRequest) -> None:
    """Check the fields of an invalidation.

    Raises:
        Fault: INVALID_ARGUMENT for a bad digest, or where no field is set.
    """
    scope = request.scope
    size = len(scope.context_sha256)
    if size and size != SHA256_BYTES:
        raise invalid("scope.context_sha256", f"has {size} bytes; a SHA-256 digest has 32")
    if not (
        request.entry_ids
        or request.tags
        or request.model
        or request.scope_id
        or scope.model
        or _own_tags(scope)
    ):
        raise invalid("entry_ids", "set at least one of entry_ids, tags, scope, scope_id, model")


async def matching_keys(
    entries: EntryStore, tenant: str, request: pb.InvalidateRequest
) -> set[str]:
    """The keys of a tenant's entries that match every field set in a checked request."""
    matches: list[set[str]] = []
    if request.entry_ids:
        matches.append(set(request.entry_ids))
    if request.tags:
        with_tags = [await entries.keys_in_group(tenant, TAG_GROUP + tag) for tag in request.tags]
        matches.append(set[str]().union(*with_tags))
    groups = [TAG_GROUP + tag for tag in _own_tags(request.scope)]
    models = [model for model in (request.model, request.scope.model) if model]
    groups += [MODEL_GROUP + model.partition("@")[0] for model in models]
    if request.scope_id:
        groups.append(SCOPE_GROUP + request.scope_id)
    matches += [await entries.keys_in_group(tenant, group) for group in groups]
    keys = set.intersection(*matches)
    if "@" in request.scope.model:
        return await _of_revision(entries, tenant, keys, request.scope.model)
    return keys


async def _of_revision(entries: EntryStore, tenant: str, keys: set[str], model: str) -> set[str]:
    """Those of the keys whose entry is of exactly this model and revision."""
    found = [await entries.get(tenant, key, 0, 0) for key in keys]
    return {entry.key for entry in found if entry is not None and entry.model == model}


def _own_tags(scope: pb.Scope) -> list[str]:
    tags = []
    if scope.namespace:
        tags.append(NAMESPACE_TAG + scope.namespace)
    if scope.context_sha256:
        tags.append(CONTEXT_TAG + scope.context_sha256.hex())
    return tags
