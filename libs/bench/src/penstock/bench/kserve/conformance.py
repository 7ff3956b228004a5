"""Runs every case at the instance and at the router, over gRPC and HTTP, and lets an unmodified
tritonclient try both: `kserve_conformance_failed` counts what failed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.bench.kserve.cases import CASES
from penstock.bench.kserve.clients import GrpcClient
from penstock.bench.kserve.http_client import HttpClient
from penstock.bench.kserve.targets import MODEL, Target, serving_targets
from penstock.bench.kserve.transport_cases import GRPC_CASES, HTTP_CASES
from penstock.testkit.eventually import eventually

PEERS_PYTHON = Path(".venv-peers/bin/python")
SCRIPT = Path(__file__).parents[1] / "peers" / "kserve_clients.py"
REGISTERED_S, POLL_S = 30.0, 0.05


@dataclass
class Conformance:
    """How many cases were run, and why each that failed did."""

    cases: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    tritonclient: str = ""
    """Version of the client, or why it was not there."""


async def run_conformance(home: Path, python: Path = PEERS_PYTHON) -> Conformance:
    """Run all cases.

    Args:
        home: folder with the built models.
        python: an environment with tritonclient; left out where it is not there.
    """
    found = Conformance()
    async with serving_targets(home) as targets:
        await _registered(targets[1])
        for target in targets:
            await _run_all(found, target)
        for target in targets:
            await _run_tritonclient(found, target, python)
    return found


async def _run_all(found: Conformance, target: Target) -> None:
    grpc_client, http_client = GrpcClient(target), HttpClient(target)
    try:
        await _run(found, f"{target.name} grpc", [*CASES, *GRPC_CASES], grpc_client, target)
        await _run(found, f"{target.name} http", [*CASES, *HTTP_CASES], http_client, target)
    finally:
        await grpc_client.close()
        await http_client.close()


async def _run(
    found: Conformance,
    where: str,
    cases: Sequence[Callable[[Any, Target], Awaitable[None]]],
    client: GrpcClient | HttpClient,
    target: Target,
) -> None:
    for case in cases:
        found.cases += 1
        try:
            await case(client, target)
        except Exception as error:
            name = getattr(case, "__name__", "case")
            found.failures[f"{where}: {name}"] = f"{type(error).__name__} {error}"


async def _run_tritonclient(found: Conformance, target: Target, python: Path) -> None:
    """Let tritonclient run its own cases, in the peers' environment: it needs protobuf below 7."""
    if not python.exists():
        found.tritonclient = "absent; `make peers` makes its environment"
        return
    process = await asyncio.create_subprocess_exec(
        str(python),
        str(SCRIPT),
        json.dumps({**vars(target), "model": MODEL}),
        env={},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    if process.returncode:
        last = (errors.decode().strip().splitlines() or ["no output"])[-1]
        found.tritonclient = f"absent; {last}"
        if "No module named" not in last:
            found.failures[f"{target.name} tritonclient"] = last
        return
    told = json.loads(out)
    found.tritonclient = told["version"]
    found.cases += told["cases"]
    found.failures |= {f"{target.name} {name}": why for name, why in told["failures"].items()}


async def _registered(router: Target) -> None:
    """Wait until the instance has registered."""
    client = GrpcClient(router)
    try:
        await eventually(lambda: client.model_ready(MODEL), timeout_s=REGISTERED_S, every_s=POLL_S)
    finally:
        await client.close()
