"""Where the milliseconds and the dollars of the demo went, and one incident caused on purpose: an
instance that begins to fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.api.telemetry.v1 import telemetry_pb2, telemetry_pb2_grpc
from penstock.hosting.grpc_server import GrpcServer
from penstock.rpc.auth import TOKEN_KEY
from penstock.rpc.auth import internal as by_token
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import open_channel
from penstock.rpc.reasons import Reason
from penstock.rpc.registration import Registrar
from penstock.service.settings import ServiceSettings
from penstock.stack.demo_parts.router import SERVICE, Sleeper
from penstock.stack.stack import Stack
from rich.console import Console
from rich.table import Table

TITLE = "Telemetry: where it went, and an incident on purpose"

MODEL = "demo-flaky"
GOOD, BAD = 80, 50
PATIENCE_S = 20.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Flaky(Sleeper):
    """Answers in a few milliseconds, until it is told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.003
        self.failing = False

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        if self.failing:
            raise Fault(Reason.INTERNAL, "this instance fails on purpose")
        return await super().Compute(request, call)


async def run(stack: Stack, console: Console) -> dict[str, float]:
    metadata = ((TOKEN_KEY, stack.internal_token),)
    async with open_channel(stack.addresses["telemetry"]) as channel:
        telemetry = telemetry_pb2_grpc.TelemetryServiceStub(channel)
        savings = await telemetry.GetSavings(telemetry_pb2.GetSavingsRequest(), metadata=metadata)
        path = await telemetry.GetCriticalPath(
            telemetry_pb2.GetCriticalPathRequest(name="RouterService"), metadata=metadata
        )
        console.print(_money(savings))
        console.print(_time(path))
        began = time.time()
        await _cause_errors(stack)
        incident = await _incident(telemetry, metadata, began)
    _show_incident(incident, console)
    picture = await _photograph(stack)
    page = f"http://{stack.addresses['console']}/"
    console.print(
        f"console: {page}" + (f"   photograph of its incidents: {picture}" if picture else "")
    )
    return {
        "ledger_unattributed_microusd": savings.unattributed_microusd,
        "incident_found": float(incident is not None),
        "incident_after_s": round(incident.opened_unix_ms / 1e3 - began, 1) if incident else 0.0,
    }


def _money(found: telemetry_pb2.GetSavingsResponse) -> Table:
    table = Table(
        "ledger",
        "micro-dollars",
        title=f"{found.calls:,} calls: full price = paid + saved, to the micro-dollar",
    )
    table.add_row("full price", f"{found.full_price_microusd:,}")
    for row in found.rows:
        table.add_row(f"saved by {row.technique}", f"{row.microusd:,}")
    table.add_row("unattributed", f"{found.unattributed_microusd:,}")
    table.add_row("paid", f"{found.paid_microusd:,}")
    return table


def _time(found: telemetry_pb2.GetCriticalPathResponse) -> Table:
    table = Table(
        "service", "operation", "share", title=f"what {found.traces:,} answers waited for"
    )
    for row in found.rows[:8]:
        table.add_row(row.service, row.name, f"{row.share:.1%}")
    return table


async def _cause_errors(stack: Stack) -> None:
    """A model whose one instance answers well for a while and then fails."""
    flaky, tenant = Flaky(), next(iter(stack.keys))
    async with _registered(stack, flaky):
        await stack.wait_for_instances(MODEL, 1, tenant)
        await _ask(stack, tenant, GOOD)
        flaky.failing = True
        await _ask(stack, tenant, BAD)


async def _ask(stack: Stack, tenant: str, calls: int) -> None:
    options = router_pb2.CallOptions(model=MODEL, cache=router_pb2.CachePolicy(bypass=True))
    request = router_pb2.EmbedRequest(texts=["one step of an agent"], options=options)
    for _ in range(calls):
        with contextlib.suppress(grpc.aio.AioRpcError):
            await stack.router.Embed(request, metadata=stack.metadata(tenant), timeout=5)


@contextlib.asynccontextmanager
async def _registered(stack: Stack, flaky: Flaky) -> AsyncIterator[None]:
    door = Endpoint(SERVICE, flaky, by_token(stack.internal_token))
    server = GrpcServer("flaky", ServiceSettings(listen="127.0.0.1:0", drain_s=0), [door])
    await server.start()
    model = inference_pb2.Model(
        name=MODEL, state=inference_pb2.MODEL_STATE_READY, tasks=["embed"], revision="demo"
    )
    instance = router_pb2.Instance(
        id="flaky-1", address=server.address, models=[model], concurrency=4
    )
    registrar = Registrar(stack.addresses["router"], instance, stack.internal_token)
    registrar.start()
    try:
        yield
    finally:
        await registrar.leave()
        await server.stop(None)


async def _incident(
    telemetry: telemetry_pb2_grpc.TelemetryServiceStub,
    metadata: tuple[tuple[str, str], ...],
    began: float,
) -> telemetry_pb2.Incident | None:
    """The incident that blames errors, once telemetry has settled the traces; None when there is
    none in time.
    """
    end = time.monotonic() + PATIENCE_S
    request = telemetry_pb2.ListIncidentsRequest(
        window=telemetry_pb2.Window(from_unix_ms=int(began * 1e3))
    )
    while time.monotonic() < end:
        answer: telemetry_pb2.ListIncidentsResponse = await telemetry.ListIncidents(
            request, metadata=metadata
        )
        for incident in answer.incidents:
            if any(part.feature == "error_rate" for part in incident.contributions):
                found: telemetry_pb2.Incident = incident
                return found
        await asyncio.sleep(0.25)
    return None


def _show_incident(incident: telemetry_pb2.Incident | None, console: Console) -> None:
    if incident is None:
        console.print("[red]no incident was found in time[/]")
        return
    blamed = ", ".join(
        f"{part.feature} {part.value:.2g} (usual {part.expected:.2g})"
        for part in incident.contributions
    )
    console.print(f"[bold red]incident[/] {incident.service}: {incident.summary}")
    console.print(
        f"  features {blamed}; waited for at {incident.critical_section}; trace "
        f"{incident.trace_ids[0][:12]}"
    )


async def _photograph(stack: Stack) -> str:
    """The console's incidents as a picture in the home folder, where a browser is; else empty."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), "")
    if not browser:
        return ""
    path = Path(stack.plan.home) / "console.png"
    command = [
        *(
            browser,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1280,900",
        ),
        *("--hide-scrollbars", "--timeout=5000", f"--screenshot={path.resolve()}"),
        f"http://{stack.addresses['console']}/incidents",
    ]
    path.unlink(missing_ok=True)
    quiet = subprocess.DEVNULL
    with contextlib.suppress(subprocess.TimeoutExpired):
        await asyncio.to_thread(
            subprocess.run, command, stdout=quiet, stderr=quiet, timeout=30.0, check=False
        )
    return str(path) if path.exists() else ""
