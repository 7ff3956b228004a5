"""`python -m penstock.stack cell router,limiter,cache,batcher`: those services in one process."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from penstock.hosting.assembly import Assembly
from penstock.hosting.cell import live_together
from penstock.hosting.cell_settings import load_members
from penstock.service.logs import configure
from penstock.service.program import CannotStart, run_main

NAME = "cell"
DRAIN_ORDER = (
    "console",
    "scaler",
    "edge",
    "router",
    "limiter",
    "cache",
    "batcher",
    "inference-onnx-quantized",
    "inference-upstream",
    "telemetry",
)
"""Every service, callers before those whom they call; a test compares it with
deploy/services.yaml. (Instances also call the router, to register: they leave it before they stop.)
"""


def run_cell(services: str) -> int:
    """Run services, given by their names with commas between, until told to stop.

    Returns the exit status.

    Raises:
        CannotStart: a name is unknown or stands twice.
        BadConfig: names every bad variable.
    """
    members = load_members(assemblies_of(services))
    settings = members[0].settings
    configure(settings.cell or NAME, settings.profile, settings.log_level)
    return run_main(NAME, live_together(members))


def assemblies_of(services: str) -> Sequence[Assembly[Any]]:
    """The named services in the order in which they drain.

    Raises:
        CannotStart: a name is unknown or stands twice.
    """
    names = [name.strip() for name in services.split(",")]
    unknown = sorted(set(names) - set(DRAIN_ORDER))
    if unknown or len(set(names)) < len(names):
        wrong = f"no service is called {unknown[0]!r}" if unknown else "a service stands twice"
        raise CannotStart(f"{wrong} in {services!r}; known are {', '.join(sorted(DRAIN_ORDER))}")
    return [_assembly(name) for name in DRAIN_ORDER if name in names]


def _assembly(name: str) -> Assembly[Any]:
    """A service's assembly; only services that run here are imported."""
    module = importlib.import_module(f"penstock.{name.replace('-', '_')}.build")
    assembly: Assembly[Any] = module.ASSEMBLY
    return assembly
