"""The fuzzer: random inputs for every target, in one virtual-time loop, and a log of what they did.

`python -m penstock.bench.fault_suite.fuzz --inputs 100000` adds a line for each target to the log.
A finding stands there with its bytes in hexadecimal, from which a test is made.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from random import Random

from penstock.api.batcher.v1 import batcher_pb2
from penstock.api.cache.v1 import cache_pb2
from penstock.api.limiter.v1 import limiter_pb2
from penstock.api.scaler.v1 import scaler_pb2
from penstock.api.telemetry.v1 import telemetry_pb2
from penstock.bench.fault_suite.fuzz_targets import (
    CALLER,
    Named,
    config_target,
    file_targets,
    frame_target,
    otlp_targets,
    rls_target,
    rpc_targets,
)
from penstock.bench.fault_suite.logs import FUZZ, append
from penstock.bench.faults.all_kinds import AllKinds
from penstock.bench.harness.json_lines import rows
from penstock.hosting.outside import Outside
from penstock.limiter.rules import LimitsSection
from penstock.otel.telemetry import NO_TELEMETRY
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.peers.in_process import InProcessPeer, LocalEndpoint
from penstock.scaler.build import build as build_scaler
from penstock.scaler.settings import ScalerSettings
from penstock.service.logs import silenced
from penstock.service.settings import load_section
from penstock.simulation.fault_plan import FaultPlan
from penstock.simulation.runs import sections
from penstock.simulation.store_server import Life
from penstock.simulation.system import (
    INSTANCES,
    REGISTRY,
    ROUTER,
    SERVICES,
    System,
    config_file,
    keep_registered,
)
from penstock.simulation.virtual_loop import run_virtual
from penstock.stack.config_sections import section_classes
from penstock.telemetry.build import build as build_telemetry
from penstock.telemetry.settings import TelemetrySettings

MAX_FINDINGS = 20
"""Findings that one line of the log keeps."""
CONFIG_EXAMPLES = ("deploy/penstock.yaml", "deploy/k8s/overlays/dev/penstock.yaml")
CARD = b'{"name": "a", "revision": "1", "tasks": ["embed"], "files": {}}'


def fuzz(seed: int, inputs: int, log: Path) -> int:
    """Give every target its share of inputs; returns how many findings there were."""
    with silenced(logging.CRITICAL), config_file(sections()) as file:
        return run_virtual(_fuzz(seed, inputs, log, file))


async def _fuzz(seed: int, inputs: int, log: Path, file: Path) -> int:
    async with _world(seed, file) as targets:
        each, found = max(inputs // len(targets), 1), 0
        for named in targets:
            rng, findings, began_s = Random(f"{seed}/{named.name}"), [], time.process_time()
            for number in range(each):
                wrong = await named.target(rng)
                if wrong is not None:
                    findings.append(wrong)
                if number % 256 == 0:
                    await asyncio.sleep(0.01)
            found += len(findings)
            append(
                log,
                {
                    "target": named.name,
                    "seed": seed,
                    "inputs": each,
                    "found": len(findings),
                    "findings": findings[:MAX_FINDINGS],
                    "cpu_s": round(time.process_time() - began_s, 1),
                },
            )
        return found


@contextlib.asynccontextmanager
async def _world(seed: int, file: Path) -> AsyncIterator[list[Named]]:
    """All services and readers, as targets."""
    plan = FaultPlan(seed, {})
    system = System(plan, file)
    for name in SERVICES:
        await system.start(name)
    registering = [asyncio.create_task(keep_registered(system, name)) for name in INSTANCES]
    for name in INSTANCES:
        system.serve_instance(name, AllKinds())
    await asyncio.sleep(2.0)
    yield [
        *_rpcs(system),
        *_others(system),
        *_readers(system, load_section(file, "limits", LimitsSection)),
    ]
    for task in registering:
        task.cancel()
    await asyncio.wait(registering)
    for name in reversed(SERVICES):
        await system.stop(name)


def _rpcs(system: System) -> list[Named]:
    services = {
        "limiter": limiter_pb2.DESCRIPTOR.services_by_name["LimiterService"],
        "cache": cache_pb2.DESCRIPTOR.services_by_name["CacheService"],
        "batcher": batcher_pb2.DESCRIPTOR.services_by_name["BatcherService"],
    }
    targets: list[Named] = []
    for name, service in services.items():
        targets += rpc_targets(system, service, system.client(name, service))
    targets += rpc_targets(system, ROUTER, system.client("router-1", ROUTER, "psk-steady"))
    targets += rpc_targets(system, REGISTRY, system.client("router-2", REGISTRY))
    targets.append(frame_target(system))
    return targets


def _others(system: System) -> list[Named]:
    """Services that the simulation does not run: telemetry and the scaler."""
    outside = Outside(
        NO_TELEMETRY, lambda *_: _nobody(), system.clock, system.ledger.opening(Life())
    )
    built = (
        (telemetry_pb2, "TelemetryService", build_telemetry(TelemetrySettings(), outside)),
        (scaler_pb2, "ScalerService", build_scaler(ScalerSettings(), outside)),
    )
    targets: list[Named] = []
    for module, name, service in built:
        descriptor = module.DESCRIPTOR.services_by_name[name]
        servicer = service.endpoints[0].servicer
        endpoint = Endpoint(descriptor, servicer, lambda _: Call(CALLER))
        local = LocalEndpoint(endpoint, clock=system.clock)
        local.open()
        peer = InProcessPeer(descriptor, partial(_same, local), clock=system.clock)
        targets += rpc_targets(system, descriptor, peer)
    return targets


def _same(local: LocalEndpoint) -> LocalEndpoint:
    return local


def _nobody() -> InProcessPeer:
    return InProcessPeer(ROUTER, lambda: None)


def _readers(system: System, limits: LimitsSection) -> list[Named]:
    examples = [Path(name).read_text() for name in CONFIG_EXAMPLES]
    return [
        *otlp_targets(system.clock),
        rls_target(system, limits),
        config_target(section_classes(), examples),
        *file_targets(CARD),
    ]


def main() -> int:
    """Run the command; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m penstock.bench.fault_suite.fuzz")
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs, over all targets")
    parser.add_argument("--log", type=Path, default=FUZZ, help="file to which lines are appended")
    given = parser.parse_args()
    seed = 1 + max((row["seed"] for row in rows(given.log)), default=-1)
    return int(fuzz(seed, given.inputs, given.log) > 0)


if __name__ == "__main__":
    sys.exit(main())
