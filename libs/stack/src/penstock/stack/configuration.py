"""Pieces of the configuration file that stacks of demos, tests and benchmarks need."""

from __future__ import annotations

import hashlib


def api_key(tenant: str, key: str) -> dict[str, str]:
    """The entry of `keys.api` for a tenant's API key."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return {"id": tenant, "organisation": tenant, "sha256": digest}
