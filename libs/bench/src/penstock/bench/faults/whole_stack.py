"""A stack as `make up` runs it, on the models that were made."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import yaml
from penstock.bench.harness.processes import home_folder
from penstock.stack import ports
from penstock.stack.configuration import api_key
from penstock.stack.log import LogStream
from penstock.stack.plan import DEFAULT_MODEL
from penstock.stack.shapes import Layout, Shape
from penstock.stack.stack import Stack, run_stack
from rich.console import Console

TENANT, KEY = "bench", "psk-faults"
PER_S = 50.0
"""Calls a second."""
INSTANCES = 2


@contextlib.asynccontextmanager
async def whole_stack(
    folder: Path, shape: Shape, workers: int = 1, sections: Mapping[str, object] | None = None
) -> AsyncIterator[Stack]:
    """A stack with two instances of the default model, with its data in `folder`.

    Args:
        sections: of the configuration, beside the key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "models").symlink_to(home_folder() / "models")
    config = folder / "penstock.yaml"
    keys = {"api": [api_key(TENANT, KEY)]}
    config.write_text(yaml.safe_dump({"keys": keys, **(sections or {})}))
    log, layout = LogStream(Console(quiet=True)), Layout(shape, workers)
    async with run_stack(ports.free(), folder, config, {TENANT: KEY}, log, layout) as stack:
        await stack.wait_for_instances(DEFAULT_MODEL, INSTANCES, TENANT)
        yield stack
