"""A tenant whose budget ends in the middle of a run: what was refused, by which rule, when it may
return, and that the books are right.
"""

from __future__ import annotations

import asyncio
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

TITLE = "Limiter: a budget that ends in mid-run"

TENANT = "pilot"
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
SETTLED_S = 6.0
"""By then every lease has been returned."""


async def run(stack: Stack, console: Console) -> dict[str, float]:
    await _reset(stack)
    metadata = stack.metadata(TENANT)
    refused: list[grpc.aio.AioRpcError] = []
    tokens, steps = 0, iter(range(STEPS))

    async def caller() -> None:
        nonlocal tokens
        for step in steps:
            options = router_pb2.CallOptions(
                run_id="pilot-run", step=f"{step}", cache=router_pb2.CachePolicy(bypass=True)
            )
            request = router_pb2.EmbedRequest(texts=[f"{TEXT} {step}"], options=options)
            try:
                answer = await stack.router.Embed(request, metadata=metadata, timeout=10)
                tokens += answer.receipt.usage.input_tokens
            except grpc.aio.AioRpcError as error:
                refused.append(error)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    console.print(_table(refused, tokens))
    usage, differing = await _books(stack, tokens)
    return {
        "limiter_served": STEPS - len(refused),
        "limiter_refused": len(refused),
        "limiter_tokens_served": tokens,
        "limiter_tokens_booked": usage.committed.tokens,
        "limiter_overshoot": max(0, usage.committed.tokens - usage.limit.tokens),
        "limiter_ledger_differs": differing,
    }


async def _reset(stack: Stack) -> None:
    """The books outlive a demo; an operator gives the tenant its hour again."""
    metadata = (("authorization", f"Bearer {stack.internal_token}"),)
    subject = limiter_pb2.Subject(rule=BUDGET["name"], organisation=TENANT, value=TENANT)
    async with open_channel(stack.addresses["limiter-admin"]) as channel:
        admin = limiter_pb2_grpc.LimiterAdminServiceStub(channel)
        await admin.ResetUsage(
            limiter_pb2.ResetUsageRequest(subject=subject, reason="the demo begins again"),
            metadata=metadata,
        )


def _table(refused: list[grpc.aio.AioRpcError], tokens: int) -> Table:
    table = Table(
        "steps",
        "what became of them",
        title=f"{STEPS} steps of one run; the budget is {BUDGET['limit']} tokens an hour",
    )
    table.add_row(f"{STEPS - len(refused)}", f"served, {tokens} tokens")
    reasons = Counter(
        (error.code().name, (error.details() or "").partition("; ")[0]) for error in refused
    )
    for (code, details), count in reasons.items():
        table.add_row(f"{count}", f"[yellow]{code}[/]: {details}")
    if refused:
        table.add_row("", f"may return in {_retry_s(refused[-1]) / 60:.0f} min, when the hour ends")
    return table


def _retry_s(error: grpc.aio.AioRpcError) -> float:
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            return float(error_details_pb2.RetryInfo.FromString(detail.value).retry_delay.seconds)
    return 0.0


async def _books(stack: Stack, tokens: int) -> tuple[limiter_pb2.RuleUsage, int]:
    """The budget's state once the router has settled, as an operator sees it; and how many counters
    differ from their replayed ledger.
    """
    metadata = (("authorization", f"Bearer {stack.internal_token}"),)
    async with open_channel(stack.addresses["limiter-admin"]) as channel:
        admin = limiter_pb2_grpc.LimiterAdminServiceStub(channel)
        request = limiter_pb2.ShowUsageRequest(path=limiter_pb2.Path(organisation=TENANT))
        usage = limiter_pb2.RuleUsage()
        for _ in range(int(SETTLED_S / 0.2)):
            rows = (await admin.ShowUsage(request, metadata=metadata)).rules
            usage = next(row for row in rows if row.rule == BUDGET["name"])
            if usage.held.tokens == 0 and usage.committed.tokens == tokens:
                break
            await asyncio.sleep(0.2)
        verified = await admin.VerifyLedger(
            limiter_pb2.VerifyLedgerRequest(organisation=TENANT), metadata=metadata
        )
    return usage, len(verified.differing)
