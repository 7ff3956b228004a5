"""The settings of the services of a cell, from the one environment that they share."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from penstock.hosting.assembly import Assembly
from penstock.hosting.cell import COLLECTOR, Member
from penstock.service.protection import missing_protection
from penstock.service.settings import BadConfig, ServiceSettings, load_settings
from penstock.service.variables import unknown_variables

LISTEN = "PENSTOCK_LISTEN"


def load_members(assemblies: Sequence[Assembly[Any]]) -> list[Member]:
    """Read the settings of every service of a cell.

    `PENSTOCK_<SERVICE>_X` is that service's alone, `PENSTOCK_X` everybody's. Where nothing says
    where another service is, and it is in the cell, the one in the cell is called.

    Raises:
        BadConfig: names every bad variable of all services.
    """
    problems = unknown_variables(os.environ)
    loaded: dict[str, ServiceSettings] = {}
    if LISTEN in os.environ and len(assemblies) > 1:
        names = ", ".join(f"PENSTOCK_{_upper(each.name)}_LISTEN" for each in assemblies)
        problems.append(f"{LISTEN}: one address cannot be that of several services; set {names}")
    for assembly in assemblies:
        try:
            settings = loaded[assembly.name] = load_settings(assembly.settings, assembly.name)
            problems += missing_protection(settings)
        except BadConfig as error:
            problems += error.problems
    if problems:
        raise BadConfig(list(dict.fromkeys(problems)))
    reached = {each.name: _Reached(each, loaded[each.name]) for each in assemblies}
    return [Member(assembly, _wired(assembly, reached)) for assembly in assemblies]


class _Reached(NamedTuple):
    """A service of the cell, as others of the cell find it."""

    assembly: Assembly[Any]
    settings: ServiceSettings

    @property
    def address(self) -> str:
        """Where it is this cell's and no other's."""
        private = self.settings.cell_address if self.assembly.owns_instances else ""
        return private or self.settings.listen

    def is_meant_by(self, given: str | None) -> bool:
        """Whether a given address is that of this service, or none is given."""
        return given is None or given == self.settings.listen


def _wired(assembly: Assembly[Any], reached: Mapping[str, _Reached]) -> ServiceSettings:
    """A service's settings, with the addresses of others in the cell where none are given."""
    others = {
        f"{name.replace('-', '_')}_address": other
        for name, other in reached.items()
        if name != assembly.name
    }
    if COLLECTOR in reached and assembly.name != COLLECTOR:
        others["otlp_endpoint"] = reached[COLLECTOR]
    addresses = {
        field: other.address
        for field, other in others.items()
        if field in assembly.settings.model_fields
        and other.is_meant_by(_given(assembly.name, field))
    }
    settings: ServiceSettings = load_settings(assembly.settings, assembly.name, **addresses)
    return settings


def _given(service: str, field: str) -> str | None:
    """What the environment says; a service's own variable comes first."""
    names = (f"PENSTOCK_{name}".upper() for name in (f"{_upper(service)}_{field}", field))
    return next((os.environ[name] for name in names if name in os.environ), None)


def _upper(service: str) -> str:
    return service.upper().replace("-", "_")
