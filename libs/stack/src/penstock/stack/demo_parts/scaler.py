"""Demand nears its daily peak; the scaler shows forecast and decision with its reason, starts
processes, replaces and drains one.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import Any

from penstock.api.router.v1 import router_pb2
from penstock.api.scaler.v1 import scaler_pb2, scaler_pb2_grpc
from penstock.rpc.auth import TOKEN_KEY
from penstock.rpc.peers.stream import open_channel
from penstock.stack.stack import Stack
from rich.console import Console
from rich.table import Table

TITLE = "scaler: capacity before the peak"
POOL = f"burst-{os.getpid()}"
"""New each time: a pool's history outlives a demo."""
INTERVAL_S = 600
DAY = 144
HISTORY = 10 * DAY
READY_S, GONE_S = 60.0, 60.0


def pool() -> dict[str, Any]:
    """The demo's pool in the `scaling` section: further instances of the demo's model, as processes
    of the scaler.
    """
    env = {
        "PENSTOCK_LISTEN": "127.0.0.1:{port}",
        "PENSTOCK_INSTANCE_ID": "{instance}",
        "PENSTOCK_COMPUTE_THREADS": "1",
    }
    return {
        "name": POOL,
        "least": 0,
        "most": 3,
        "interval_s": INTERVAL_S,
        "capacity": 1000.0,
        "utilisation": 0.8,
        "seed_lead_s": 30.0,
        "start_cost_s": 2.0,
        "down_every_s": 1.0,
        "zero_after_s": 2.0,
        "actuator": {
            "kind": "process",
            "command": ["{python}", "-u", "-m", "penstock.inference_onnx_quantized"],
            "env": env,
        },
    }


async def run(stack: Stack, console: Console) -> dict[str, float]:
    """Report ten days of demand, the last of them about to peak, then say that an instance will be
    taken away.
    """
    metadata = ((TOKEN_KEY, stack.internal_token),)
    async with open_channel(stack.addresses["scaler"]) as channel:
        scaler = scaler_pb2_grpc.ScalerServiceStub(channel)
        request = scaler_pb2.ReportDemandRequest(pool=POOL, samples=_history())
        await scaler.ReportDemand(request, metadata=metadata, timeout=10)
        began = time.monotonic()
        first = await _wait_for(stack, f"{POOL}-2", READY_S)
        seconds = time.monotonic() - began
        console.print(
            f"{POOL}-2 serves {seconds:.1f} s after the report, before the peak"
            if first
            else "nothing started"
        )
        forecast = await scaler.GetForecast(
            scaler_pb2.GetForecastRequest(pool=POOL), metadata=metadata
        )
        decisions = await scaler.ListDecisions(
            scaler_pb2.ListDecisionsRequest(pool=POOL, limit=5), metadata=metadata
        )
        _show(forecast, decisions, console)
        notice = scaler_pb2.NotifyTerminationRequest(instance_id=f"{POOL}-1", source="demo")
        replaced = (await scaler.NotifyTermination(notice, metadata=metadata)).replaced
        second = await _wait_for(stack, f"{POOL}-3", READY_S)
        gone = await _wait_for(stack, f"{POOL}-1", GONE_S, there=False)
        console.print(
            f"{POOL}-1 was told to go: replaced by {POOL}-3, then drained"
            if replaced and second and gone
            else "not replaced"
        )
    return {
        "scaler_decisions": len(decisions.decisions),
        "scaler_started": int(first),
        "scaler_replaced_and_drained": int(replaced and second and gone),
    }


def _history() -> list[scaler_pb2.DemandSample]:
    """Compute milliseconds in ten minutes: ten days, each with a peak of eight hours, the next of
    which begins now.
    """
    now_ms, noise = round(time.time() * 1e3), random.Random(7)
    samples = []
    for number in range(HISTORY):
        start = now_ms - (HISTORY - number) * INTERVAL_S * 1000
        into_day = (number + 2) % DAY  # two samples of the newest day have begun to rise
        share = min(into_day, 4) / 4 if into_day < 48 else 0.0
        work = (200_000.0 + 500_000.0 * share) * noise.gauss(1.0, 0.03)
        samples.append(
            scaler_pb2.DemandSample(start_unix_ms=start, interval_ms=INTERVAL_S * 1000, work=work)
        )
    return samples


async def _wait_for(stack: Stack, instance: str, seconds: float, there: bool = True) -> bool:
    """Whether the router has (or no longer has) this instance before time is up."""
    end = time.monotonic() + seconds
    tenant = next(iter(stack.keys))
    while time.monotonic() < end:
        board = await stack.router.GetScoreboard(
            router_pb2.GetScoreboardRequest(), metadata=stack.metadata(tenant)
        )
        if (instance in {row.instance.id for row in board.rows}) == there:
            return True
        await asyncio.sleep(0.2)
    return False


def _show(
    forecast: scaler_pb2.GetForecastResponse,
    decisions: scaler_pb2.ListDecisionsResponse,
    console: Console,
) -> None:
    experts = sorted(forecast.experts.items(), key=lambda row: -row[1])[:4]
    told = (
        "reactive rules decide, for the forecast has lost to them"
        if forecast.fallen_back
        else "the forecast decides"
    )
    for point in forecast.points:
        console.print(
            f"forecast: median {point.median:,.0f}, {forecast.level:g} quantile "
            f"{point.quantile:,.0f} compute ms; {told}"
        )
    console.print("experts: " + ", ".join(f"{name} {weight:.0%}" for name, weight in experts))
    table = Table(
        "instances",
        "decided by",
        "forecast",
        "horizon s",
        "present demand needs",
        title="Decisions, the newest first",
    )
    for row in decisions.decisions:
        table.add_row(
            f"{row.current} → {row.wanted}",
            row.reason,
            f"{row.forecast:,.0f}",
            f"{row.horizon_ms / 1e3:g}",
            f"{row.reactive_floor}",
        )
    console.print(table)
