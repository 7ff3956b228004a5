"""The environment variables that a service reads."""

from __future__ import annotations

import importlib

from penstock.service.settings import ServiceSettings, describe
from services_file import package_of


def variables_read(service: str) -> set[str]:
    """Names of all variables of a service's settings."""
    module = importlib.import_module(f"penstock.{package_of(service)}.settings")
    kinds = (
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, ServiceSettings)
    )
    return {name for kind in kinds for name, _, _ in describe(kind)}
