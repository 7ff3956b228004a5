"""The settings of the services of a cell, from the one environment that they share."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.hosting.assembly import Assembly
from penstock.hosting.cell import Member
from penstock.service.settings import BadConfig, ServiceSettings, load_settings
from penstock.service.variables import unknown_variables

LISTEN = "PENSTOCK_LISTEN"
COLLECTOR = "telemetry"
"""The service that others export to."""


def load_members(assemblies: Sequence[Assembly[Any]]) -> list[Member]:
    """Read the settings of every service of a cell.

    `PENSTOCK_<SERVICE>_X` is that service's alone, `PENSTOCK_X` everybody's. Where nothing says
    where another service is, and it is in the cell, the one in the cell is called.

    Raises:
        BadConfig: names every bad variable of all services.
    """
    problems = unknown_variables(os.environ)
    listens: dict[str, str] = {}
    if LISTEN in os.environ and len(assemblies) > 1:
        names = ", ".join(f"PENSTOCK_{_upper(each.name)}_LISTEN" for each in assemblies)
        problems.append(f"{LISTEN}: one address cannot be that of several services; set {names}")
    for assembly in assemblies:
        try:
            listens[assembly.name] = load_settings(assembly.settings, assembly.name).listen
        except BadConfig as error:
            problems += error.problems
    if problems:
        raise BadConfig(list(dict.fromkeys(problems)))
    return [Member(assembly, _wired(assembly, listens)) for assembly in assemblies]


def _wired(assembly: Assembly[Any], listens: Mapping[str, str]) -> ServiceSettings:
    """A service's settings, with the addresses of others in the cell where none are given."""
    addresses = {
        f"{name.replace('-', '_')}_address": listen
        for name, listen in listens.items()
        if name != assembly.name
    }
    if COLLECTOR in listens and assembly.name != COLLECTOR:
        addresses["otlp_endpoint"] = listens[COLLECTOR]
    missing = {
        field: address
        for field, address in addresses.items()
        if field in assembly.settings.model_fields and not _is_given(assembly.name, field)
    }
    settings: ServiceSettings = load_settings(assembly.settings, assembly.name, **missing)
    return settings


def _is_given(service: str, field: str) -> bool:
    return any(
        f"PENSTOCK_{name}".upper() in os.environ for name in (field, f"{_upper(service)}_{field}")
    )


def _upper(service: str) -> str:
    return service.upper().replace("-", "_")
