"""Pieces of the configuration file that stacks of demos, tests and benchmarks need."""

from __future__ import annotations

import hashlib
from pathlib import Path

from penstock.service.settings import read_file


def api_key(tenant: str, key: str) -> dict[str, object]:
    """The entry of `keys.api` for a tenant's API key, which may use every priority."""
    return {
        "id": tenant,
        "organisation": tenant,
        "sha256": _digest(key),
        "priority_ceiling": "critical",
        "shows_addresses": True,
    }


def accepts_key(config_file: Path, key: str) -> bool:
    """Whether a configuration file lists an API key.

    Raises:
        BadConfig: the file cannot be read.
    """
    keys = (read_file(config_file).get("keys") or {}).get("api") or []
    return any(entry.get("sha256") == _digest(key) for entry in keys)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
