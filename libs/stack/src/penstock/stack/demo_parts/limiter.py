"""A tenant whose budget ends in the middle of a run: what was refused, and what the ledger says."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from penstock.api.limiter.v1 import limiter_pb2, limiter_pb2_grpc
from penstock.api.router.v1 import router_pb2
from penstock.rpc.peers.stream import open_channel
from penstock.stack.stack import Stack
from rich.console import Console
from rich.table import Table

TITLE = "limiter: a budget that ends in the middle of a run"
BUDGET_TENANT = "pilot"
BUDGET: dict[str, Any] = {
    "name": "pilot-hour",
    "kind": "budget",
    "counts": "tokens",
    "limit": 900,
    "window": "hour",
    "calendar": True,
}
STEPS = 120
CALLERS = 8
TEXT = "does the reserve of the northern reservoir cover the evening peak"
CALL_TIMEOUT_S = 10
SETTLED_WAIT_S = 6.0
"""Within this time the router has returned every lease and settled every call."""
POLL_S = 0.2

Stub = limiter_pb2_grpc.LimiterAdminServiceStub
Metadata = tuple[tuple[str, str], ...]


async def run(stack: Stack, console: Console) -> dict[str, float]:
    """Send 120 steps of one run against a budget of 900 tokens an hour."""
    metadata = (("authorization", f"Bearer {stack.internal_token}"),)
    async with open_channel(stack.addresses["limiter-admin"], stack.tls) as channel:
        admin = limiter_pb2_grpc.LimiterAdminServiceStub(channel)
        await _reset(admin, metadata)
        refusals, tokens = await _spend(stack)
        console.print(_table(refusals, tokens))
        usage = await _settled_usage(admin, metadata, tokens)
        request = limiter_pb2.VerifyLedgerRequest(organisation=BUDGET_TENANT)
        verified = await admin.VerifyLedger(request, metadata=metadata)
    return {
        "limiter_served": STEPS - len(refusals),
        "limiter_refused": len(refusals),
        "limiter_tokens_served": tokens,
        "limiter_tokens_booked": usage.committed.tokens,
        "limiter_overshoot": max(0, usage.committed.tokens - usage.limit.tokens),
        "limiter_ledger_differs": len(verified.differing),
    }


async def _reset(admin: Stub, metadata: Metadata) -> None:
    """Give the tenant its whole hour, because the ledger outlives a demo."""
    subject = limiter_pb2.Subject(
        rule=BUDGET["name"], organisation=BUDGET_TENANT, value=BUDGET_TENANT
    )
    request = limiter_pb2.ResetUsageRequest(subject=subject, reason="a new demo begins")
    await admin.ResetUsage(request, metadata=metadata)


async def _spend(stack: Stack) -> tuple[list[grpc.aio.AioRpcError], int]:
    """Send all steps; return the refusals and the tokens of the answered steps."""
    refusals: list[grpc.aio.AioRpcError] = []
    tokens = 0
    steps = iter(range(STEPS))
    metadata = stack.metadata(BUDGET_TENANT)

    async def caller() -> None:
        nonlocal tokens
        for step in steps:
            try:
                answer = await stack.router.Embed(
                    _request(step), metadata=metadata, timeout=CALL_TIMEOUT_S
                )
            except grpc.aio.AioRpcError as error:
                refusals.append(error)
            else:
                tokens += answer.receipt.usage.input_tokens

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return refusals, tokens


def _request(step: int) -> router_pb2.EmbedRequest:
    options = router_pb2.CallOptions(
        run_id="pilot-run", step=f"{step}", cache=router_pb2.CachePolicy(bypass=True)
    )
    return router_pb2.EmbedRequest(texts=[f"{TEXT} {step}"], options=options)


def _table(refusals: list[grpc.aio.AioRpcError], tokens: int) -> Table:
    table = Table(
        "steps",
        "outcome",
        title=f"{STEPS} steps of one run; the budget is {BUDGET['limit']} tokens an hour",
    )
    table.add_row(f"{STEPS - len(refusals)}", f"served, {tokens} tokens")
    reasons = Counter(
        (error.code().name, (error.details() or "").partition("; ")[0]) for error in refusals
    )
    for (code, details), count in reasons.items():
        table.add_row(f"{count}", f"[yellow]{code}[/]: {details}")
    if refusals:
        minutes = _retry_delay_s(refusals[-1]) / 60
        table.add_row("", f"may retry in {minutes:.0f} min, when the hour ends")
    return table


def _retry_delay_s(error: grpc.aio.AioRpcError) -> float:
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            return float(error_details_pb2.RetryInfo.FromString(detail.value).retry_delay.seconds)
    return 0.0


async def _settled_usage(admin: Stub, metadata: Metadata, tokens: int) -> limiter_pb2.RuleUsage:
    """The budget's usage once `tokens` are booked and nothing is held, or after six seconds."""
    request = limiter_pb2.ShowUsageRequest(path=limiter_pb2.Path(organisation=BUDGET_TENANT))
    end_s = time.monotonic() + SETTLED_WAIT_S
    while True:
        rows = (await admin.ShowUsage(request, metadata=metadata)).rules
        usage: limiter_pb2.RuleUsage = next(row for row in rows if row.rule == BUDGET["name"])
        settled = usage.held.tokens == 0 and usage.committed.tokens == tokens
        if settled or time.monotonic() >= end_s:
            return usage
        await asyncio.sleep(POLL_S)
