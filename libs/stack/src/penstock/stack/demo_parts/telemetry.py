"""Where the milliseconds and the dollars of the demo went, and one incident made on purpose.

An instance answers well for a while and then fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import time

import grpc
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.api.telemetry.v1 import telemetry_pb2, telemetry_pb2_grpc
from penstock.rpc.auth import TOKEN_KEY
from penstock.rpc.call import Call
from penstock.rpc.errors import internal
from penstock.rpc.peers.stream import open_channel
from penstock.stack.stack import Stack
from penstock.testkit.instance import SleepingInstance
from penstock.testkit.registered import Registration, registered_instance
from rich.console import Console
from rich.table import Table

TITLE = "telemetry: time and money of the demo, and an incident on purpose"
MODEL = "demo-flaky"
REGISTRATION = Registration("flaky-1", MODEL, concurrency=4)
COMPUTE_S = 0.003
GOOD_CALLS, FAILING_CALLS = 80, 50
CALL_TIMEOUT_S = 5
INCIDENT_WAIT_S = 20.0
POLL_S = 0.25
SHOWN_SECTIONS = 8
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SCREENSHOT_TIMEOUT_S = 30.0

Metadata = tuple[tuple[str, str], ...]


class FlakyInstance(SleepingInstance):
    """Answers in a few milliseconds; raises INTERNAL while `failing` is true."""

    def __init__(self) -> None:
        super().__init__(COMPUTE_S)
        self.failing = False

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        """See InferenceService."""
        if self.failing:
            raise internal("this instance fails on purpose")
        return await super().Compute(request, call)


async def run(stack: Stack, console: Console) -> dict[str, float]:
    """Show the savings ledger and the critical path, cause errors, wait for the incident."""
    metadata = ((TOKEN_KEY, stack.internal_token),)
    async with open_channel(stack.addresses["telemetry"], stack.tls) as channel:
        telemetry = telemetry_pb2_grpc.TelemetryServiceStub(channel)
        savings = await telemetry.GetSavings(telemetry_pb2.GetSavingsRequest(), metadata=metadata)
        path = await telemetry.GetCriticalPath(
            telemetry_pb2.GetCriticalPathRequest(name="RouterService"), metadata=metadata
        )
        console.print(_savings_table(savings))
        console.print(_critical_path_table(path))
        began_unix_s = time.time()
        await _cause_errors(stack)
        incident = await _wait_for_incident(telemetry, metadata, began_unix_s)
    _show_incident(incident, console)
    page = f"http://{stack.addresses['console']}/"
    screenshot = await _screenshot(f"{page}incidents", stack)
    console.print(f"console: {page}" + (f"   screenshot: {screenshot}" if screenshot else ""))
    after_s = incident.opened_unix_ms / 1e3 - began_unix_s if incident else 0.0
    return {
        "ledger_unattributed_microusd": savings.unattributed_microusd,
        "incident_found": float(incident is not None),
        "incident_after_s": round(after_s, 1),
    }


def _savings_table(savings: telemetry_pb2.GetSavingsResponse) -> Table:
    table = Table(
        "ledger",
        "micro-dollars",
        title=f"{savings.calls:,} calls: full price = paid + saved, to the micro-dollar",
    )
    table.add_row("full price", f"{savings.full_price_microusd:,}")
    for row in savings.rows:
        table.add_row(f"saved by {row.technique}", f"{row.microusd:,}")
    table.add_row("unattributed", f"{savings.unattributed_microusd:,}")
    table.add_row("paid", f"{savings.paid_microusd:,}")
    return table


def _critical_path_table(path: telemetry_pb2.GetCriticalPathResponse) -> Table:
    table = Table(
        "service", "operation", "share", title=f"critical path of {path.traces:,} answers"
    )
    for row in path.rows[:SHOWN_SECTIONS]:
        table.add_row(row.service, row.name, f"{row.share:.1%}")
    return table


async def _cause_errors(stack: Stack) -> None:
    """Call a model whose only instance answers well for a while and then fails."""
    instance = FlakyInstance()
    tenant = next(iter(stack.keys))
    async with registered_instance(
        instance, REGISTRATION, stack.addresses["registry"], stack.registering()
    ):
        await stack.wait_for_instances(MODEL, 1, tenant)
        await _send(stack, tenant, GOOD_CALLS)
        instance.failing = True
        await _send(stack, tenant, FAILING_CALLS)


async def _send(stack: Stack, tenant: str, calls: int) -> None:
    options = router_pb2.CallOptions(model=MODEL, cache=router_pb2.CachePolicy(bypass=True))
    request = router_pb2.EmbedRequest(texts=["one step of an agent"], options=options)
    metadata = stack.metadata(tenant)
    for _ in range(calls):
        with contextlib.suppress(grpc.aio.AioRpcError):
            await stack.router.Embed(request, metadata=metadata, timeout=CALL_TIMEOUT_S)


async def _wait_for_incident(
    telemetry: telemetry_pb2_grpc.TelemetryServiceStub, metadata: Metadata, since_unix_s: float
) -> telemetry_pb2.Incident | None:
    """The first incident since then with the error rate as a cause; None after twenty seconds."""
    window = telemetry_pb2.Window(from_unix_ms=int(since_unix_s * 1e3))
    request = telemetry_pb2.ListIncidentsRequest(window=window)
    end_s = time.monotonic() + INCIDENT_WAIT_S
    while time.monotonic() < end_s:
        answer: telemetry_pb2.ListIncidentsResponse = await telemetry.ListIncidents(
            request, metadata=metadata
        )
        for incident in answer.incidents:
            if any(part.feature == "error_rate" for part in incident.contributions):
                found: telemetry_pb2.Incident = incident
                return found
        await asyncio.sleep(POLL_S)
    return None


def _show_incident(incident: telemetry_pb2.Incident | None, console: Console) -> None:
    if incident is None:
        console.print("[red]no incident was opened in time[/]")
        return
    causes = ", ".join(
        f"{part.feature} {part.value:.2g} (usual {part.expected:.2g})"
        for part in incident.contributions
    )
    console.print(f"[bold red]incident[/] {incident.service}: {incident.summary}")
    console.print(
        f"  features {causes}; critical section {incident.critical_section}; trace "
        f"{incident.trace_ids[0][:12]}"
    )


async def _screenshot(url: str, stack: Stack) -> str:
    """Path of a picture of a page, in the stack's home; empty where there is no browser."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), "")
    if not browser:
        return ""
    path = stack.plan.home / "console.png"
    path.unlink(missing_ok=True)
    command = [
        browser,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
        "--hide-scrollbars",
        "--timeout=5000",
        f"--screenshot={path.resolve()}",
        url,
    ]
    with contextlib.suppress(subprocess.TimeoutExpired):
        await asyncio.to_thread(
            subprocess.run,
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SCREENSHOT_TIMEOUT_S,
            check=False,
        )
    return str(path) if path.exists() else ""
