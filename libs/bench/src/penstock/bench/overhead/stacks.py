"""The stacks that the overhead is measured on: all deciding services with an instant model."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2, router_pb2_grpc
from penstock.bench.edge.provider import CHAT, Provider
from penstock.bench.harness.echo import TOKEN, EchoAddresses
from penstock.bench.harness.processes import supervised
from penstock.rpc.peers.stream import open_channel
from penstock.rpc.registration import Registrar
from penstock.service.profiles import Profile
from penstock.stack import ports
from penstock.stack.configuration import api_key
from penstock.stack.identities import STAND_IN, Identities
from penstock.stack.plan import StackPlan
from penstock.stack.shapes import Shape
from penstock.stack.stack import Stack
from penstock.testkit.registered import InstanceIdentity

TENANT = "bench"
KEY = "psk-overhead"
MODEL = "instant"
UPSTREAM = "provider"
UNLIMITED_PROBES = 10**6
"""Look-ups by meaning a second; the default bound slows down those who guess."""
PRICE = {"name": CHAT, "input_microusd_per_mtok": 150_000, "output_microusd_per_mtok": 600_000}
SORTER = "sorter"
"""A model whose answers are reused by meaning, which pays off only where they are dear."""
SORTER_PRICE = {
    "name": SORTER,
    "input_microusd_per_mtok": 3_000_000,
    "output_microusd_per_mtok": 15_000_000,
}
CONCURRENCY = 64
EMBED, RERANK = inference_pb2.TASK_KIND_EMBED, inference_pb2.TASK_KIND_RERANK
WIDE_RATE = {
    "name": "wide",
    "kind": "rate",
    "counts": "requests",
    "limit": 10**9,
    "window": "minute",
}


@dataclass(frozen=True)
class Choices:
    """What differs between such stacks.

    Attributes:
        shape: which services share a process.
        traced: whether there is a telemetry service, to which all others export.
        profile: `development` (everything is recorded) or `production` (a sample).
        workers: cells behind one address.
        identities: what services prove themselves with, over TLS; the instant model has to speak it
            too.
        provider: one that gets a service of its own before it.
        models: folder of models, for a cache that reuses answers by meaning; None: exact ones only.
        edge: whether separate processes include the HTTP edge; a cell always has it.
    """

    shape: Shape = "cell"
    traced: bool = False
    profile: Profile = "production"
    workers: int = 1
    identities: Identities | None = None
    provider: Provider | None = None
    models: Path | None = None
    edge: bool = False


@contextlib.asynccontextmanager
async def instant_stack(echo: EchoAddresses, choices: Choices) -> AsyncIterator[Stack]:
    """All deciding services as processes, with the instant model registered."""
    identities, provider = choices.identities, choices.provider
    tls = identities.tls(STAND_IN) if identities is not None else None
    with tempfile.TemporaryDirectory(prefix="penstock-overhead-") as name:
        folder = Path(name)
        if choices.models is not None:
            (folder / "models").symlink_to(choices.models)
        config = folder / "penstock.yaml"
        config.write_text(yaml.safe_dump(_config(provider)))
        plan = StackPlan(
            ports.free(),
            folder,
            folder,
            config,
            TOKEN,
            profile=choices.profile,
            shape=choices.shape,
            workers=choices.workers,
            identities=identities,
            tls=tls,
            upstream_name=UPSTREAM if provider is not None else "",
        )
        async with supervised(tls) as supervisor:
            for stage in plan.request_path(traced=choices.traced):
                await supervisor.start(stage)
            async with open_channel(plan.addresses["router"], tls) as channel:
                stub = router_pb2_grpc.RouterServiceStub(channel)
                stack = Stack(plan, supervisor, stub, {TENANT: KEY})
                registrar = _registrar(plan, echo)
                registrar.start()
                await stack.wait_for_instances(MODEL, 1, TENANT)
                if provider is not None:
                    await supervisor.start((plan.upstream(UPSTREAM, otlp_endpoint=""),))
                    await stack.wait_for_instances(CHAT, 1, TENANT)
                if choices.edge and choices.shape == "processes":
                    await supervisor.start((plan.edge(),))
                yield stack
                await registrar.leave()


def _config(provider: Provider | None) -> dict[str, object]:
    content: dict[str, object] = {
        "keys": {"api": [api_key(TENANT, KEY)]},
        "limits": {"rules": [WIDE_RATE]},
        "cache": {"probes_per_s": UNLIMITED_PROBES},
        "prices": {"models": [PRICE, SORTER_PRICE]},
    }
    if provider is not None:
        server = {"name": UPSTREAM, "base_url": provider.base_url, "models": [{"name": CHAT}]}
        content["upstreams"] = {"servers": [server]}
    return content


def _registrar(plan: StackPlan, echo: EchoAddresses) -> Registrar:
    model = inference_pb2.Model(
        name=MODEL, state=inference_pb2.MODEL_STATE_READY, tasks=[EMBED, RERANK]
    )
    instance = router_pb2.Instance(
        id="instant", address=echo.endpoint, models=[model], concurrency=CONCURRENCY
    )
    identity = InstanceIdentity(TOKEN, tls=plan.tls)
    address = plan.addresses["registry"]
    return Registrar(address, instance, TOKEN, common_pb2.LoadReport, dial=identity.dial)


def processes_of(stack: Stack) -> list[int]:
    """All processes of a stack, stores included."""
    return sorted({*processes_in(stack.plan.home), *stack.supervisor.pids})


def processes_in(home: Path) -> Iterator[int]:
    """The processes of one stack, known by its folder in their environment."""
    variable = f"PENSTOCK_HOME={home}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if variable in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)
