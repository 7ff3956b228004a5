"""Demand nears its daily peak: the scaler forecasts it and starts instances before it comes.

The demand is reported while other parts run, since learning from it and starting take a while. Then
one instance is to be taken away; the scaler replaces it and drains it. Instances are processes
on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator
from typing import Any

from penstock.api.router.v1 import router_pb2
from penstock.api.scaler.v1 import scaler_pb2, scaler_pb2_grpc
from penstock.rpc.auth import TOKEN_KEY
from penstock.rpc.peers.stream import open_channel
from penstock.stack.stack import Stack
from rich.console import Console
from rich.table import Table

TITLE = "scaler: instances before the peak"
POOL = f"burst-{os.getpid()}"
"""New for each demo, because the scaler keeps a pool's history."""
INTERVAL_S = 600
INTERVALS_PER_DAY = 144
HISTORY_INTERVALS = 10 * INTERVALS_PER_DAY
PEAK_INTERVALS = 48
RISE_INTERVALS = 4
"""The peak lasts eight hours, and demand takes forty minutes to reach it."""
BASE_WORK_MS, PEAK_WORK_MS = 200_000.0, 500_000.0
"""Compute milliseconds in an interval outside the peak, and what the peak adds to them."""
NOISE = 0.03
CHANGE_WAIT_S = 60.0
POLL_S = 0.2
SHOWN_EXPERTS = 4

Stub = scaler_pb2_grpc.ScalerServiceStub
Metadata = tuple[tuple[str, str], ...]
Starting = asyncio.Task[float | None]


def pool() -> dict[str, Any]:
    """The demo's pool for the `scaling` section: at most three more instances, as processes."""
    env = {
        "PENSTOCK_LISTEN": "127.0.0.1:{port}",
        "PENSTOCK_INSTANCE_ID": "{instance}",
        "PENSTOCK_COMPUTE_THREADS": "1",
    }
    return {
        "name": POOL,
        "min_instances": 0,
        "max_instances": 3,
        "interval_s": INTERVAL_S,
        "capacity": 1000.0,
        "target_utilisation": 0.8,
        "initial_lead_time_s": 30.0,
        "start_cost_s": 2.0,
        "scale_down_period_s": 1.0,
        "scale_to_zero_after_s": 2.0,
        "actuator": {
            "kind": "process",
            "command": ["{python}", "-u", "-m", "penstock.inference_onnx_quantized"],
            "env": env,
        },
    }


@contextlib.asynccontextmanager
async def peak_announced(stack: Stack) -> AsyncIterator[Starting]:
    """Report ten days of demand that is about to peak; until the block ends, watch for instances.

    Yields what gives the seconds until a second instance served, or None where none did in time.
    """
    starting = asyncio.create_task(_start_before_peak(stack), name="instances before the peak")
    try:
        yield starting
    finally:
        starting.cancel()
        await asyncio.wait([starting])


async def run(stack: Stack, console: Console, starting: Starting) -> dict[str, float]:
    """Show what the forecast made the scaler do, then announce the end of an instance."""
    metadata = ((TOKEN_KEY, stack.internal_token),)
    took_s = await starting
    if took_s is None:
        console.print(f"[red]{POOL}-2 did not start in time[/]")
    else:
        console.print(f"{POOL}-2 served {took_s:.1f} s after the report, before the peak")
    async with open_channel(stack.addresses["scaler"]) as channel:
        scaler = scaler_pb2_grpc.ScalerServiceStub(channel)
        forecast = await scaler.GetForecast(
            scaler_pb2.GetForecastRequest(pool=POOL), metadata=metadata
        )
        decisions = await scaler.ListDecisions(
            scaler_pb2.ListDecisionsRequest(pool=POOL, limit=5), metadata=metadata
        )
        _show_forecast(forecast, console)
        console.print(_decision_table(decisions))
        replaced = await _replace_terminated(stack, scaler, metadata, console)
    return {
        "scaler_decisions": len(decisions.decisions),
        "scaler_started": int(took_s is not None),
        "scaler_replaced_and_drained": int(replaced),
    }


async def _start_before_peak(stack: Stack) -> float | None:
    """Report the history; the seconds until a second instance serves, None where none does."""
    metadata = ((TOKEN_KEY, stack.internal_token),)
    report = scaler_pb2.ReportDemandRequest(pool=POOL, samples=_history())
    async with open_channel(stack.addresses["scaler"]) as channel:
        scaler = scaler_pb2_grpc.ScalerServiceStub(channel)
        await scaler.ReportDemand(report, metadata=metadata, timeout=10)
    reported_s = time.monotonic()
    started = await _wait_for_instance(stack, f"{POOL}-2", registered=True)
    return time.monotonic() - reported_s if started else None


async def _replace_terminated(
    stack: Stack, scaler: Stub, metadata: Metadata, console: Console
) -> bool:
    """Announce the end of the first instance; whether it is replaced and then drained."""
    notice = scaler_pb2.NotifyTerminationRequest(instance_id=f"{POOL}-1", source="demo")
    answer = await scaler.NotifyTermination(notice, metadata=metadata)
    replaced = await _wait_for_instance(stack, f"{POOL}-3", registered=True)
    drained = await _wait_for_instance(stack, f"{POOL}-1", registered=False)
    done = bool(answer.replaced and replaced and drained)
    if done:
        console.print(f"{POOL}-1 got a termination notice: replaced by {POOL}-3, then drained")
    else:
        console.print(f"[red]{POOL}-1 was not replaced and drained in time[/]")
    return done


def _history() -> list[scaler_pb2.DemandSample]:
    """Ten days of demand with a daily peak; the newest samples have just begun to rise."""
    now_ms = round(time.time() * 1e3)
    noise = random.Random(7)
    samples = []
    for number in range(HISTORY_INTERVALS):
        start_ms = now_ms - (HISTORY_INTERVALS - number) * INTERVAL_S * 1000
        time_of_day = (number + RISE_INTERVALS // 2) % INTERVALS_PER_DAY
        in_peak = time_of_day < PEAK_INTERVALS
        rise = min(time_of_day, RISE_INTERVALS) / RISE_INTERVALS if in_peak else 0.0
        work_ms = (BASE_WORK_MS + PEAK_WORK_MS * rise) * noise.gauss(1.0, NOISE)
        samples.append(
            scaler_pb2.DemandSample(
                start_unix_ms=start_ms, interval_ms=INTERVAL_S * 1000, work=work_ms
            )
        )
    return samples


async def _wait_for_instance(stack: Stack, instance: str, *, registered: bool) -> bool:
    """Wait until an instance is registered at the router, or is not; false after a minute."""
    tenant = next(iter(stack.keys))
    metadata = stack.metadata(tenant)
    end_s = time.monotonic() + CHANGE_WAIT_S
    while time.monotonic() < end_s:
        board = await stack.router.GetScoreboard(
            router_pb2.GetScoreboardRequest(), metadata=metadata
        )
        if (instance in {row.instance.id for row in board.rows}) == registered:
            return True
        await asyncio.sleep(POLL_S)
    return False


def _show_forecast(forecast: scaler_pb2.GetForecastResponse, console: Console) -> None:
    decider = (
        "reactive rules decide; the forecast did worse"
        if forecast.fallen_back
        else ("the forecast decides")
    )
    for point in forecast.points:
        console.print(
            f"forecast: median {point.median:,.0f}, {forecast.level:g} quantile "
            f"{point.quantile:,.0f} compute ms; {decider}"
        )
    experts = sorted(forecast.experts.items(), key=lambda row: -row[1])[:SHOWN_EXPERTS]
    console.print("experts: " + ", ".join(f"{name} {weight:.0%}" for name, weight in experts))


def _decision_table(decisions: scaler_pb2.ListDecisionsResponse) -> Table:
    table = Table(
        "instances",
        "reason",
        "forecast",
        "horizon s",
        "needed for present demand",
        title="Decisions, newest first",
    )
    for row in decisions.decisions:
        table.add_row(
            f"{row.current} → {row.wanted}",
            row.reason,
            f"{row.forecast:,.0f}",
            f"{row.horizon_ms / 1e3:g}",
            f"{row.reactive_floor}",
        )
    return table
