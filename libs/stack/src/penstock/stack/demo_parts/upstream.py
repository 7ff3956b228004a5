"""Agents that chat with a scripted upstream (simulated): streams as they come, what they cost, and
what the prompt optimiser saved.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from penstock.api.router.v1 import router_pb2
from penstock.stack.stack import Stack
from penstock.testkit.upstream import ScriptedAnswer, ScriptedUpstream
from rich.console import Console
from rich.table import Table

TITLE = "Upstream: agents chat through a pool of connections (upstream simulated)"

MODEL = "demo-chat"
PRICE = {
    "name": MODEL,
    "input_microusd_per_mtok": 3_000_000,
    "cached_input_microusd_per_mtok": 300_000,
    "output_microusd_per_mtok": 15_000_000,
}
AGENTS, STEPS = 4, 6
FIRST_S, WORD_S = 0.030, 0.002
ANSWER = "the reserve covers the evening peak with a margin of two hours in every district but one"


async def run(stack: Stack, console: Console) -> dict[str, float]:
    tenant = next(iter(stack.keys))
    with tempfile.TemporaryDirectory(prefix="penstock-demo-upstream-") as folder:
        async with ScriptedUpstream(
            _answer, first_token_s=FIRST_S, per_word_s=WORD_S, key="demo-key"
        ) as upstream:
            config = _configured(Path(folder), upstream.url)
            await stack.supervisor.start(
                (stack.plan.upstream("scripted", config_file=str(config)),)
            )
            await stack.wait_for_instances(MODEL, 1, tenant)
            rows = [
                row
                for rows in await asyncio.gather(*(_agent(stack, tenant, n) for n in range(AGENTS)))
                for row in rows
            ]
            connections, requests = upstream.connections, len(upstream.requests)
    console.print(_table(rows, connections, requests))
    saved = sum(saving.microusd for receipt, _, _ in rows for saving in receipt.savings)
    paid = sum(receipt.cost.paid_microusd for receipt, _, _ in rows)
    full = sum(receipt.cost.full_price_microusd for receipt, _, _ in rows)
    return {
        "upstream_answers": len(rows),
        "upstream_first_token_ms": round(statistics.median(first for _, first, _ in rows), 1),
        "upstream_connections": connections,
        "upstream_paid_microusd": paid,
        "upstream_cost_cut": round(saved / full, 3),
        "upstream_unattributed_microusd": full - paid - saved,
    }


def _answer(body: dict[str, Any]) -> ScriptedAnswer:
    """The same words, and what a provider's prefix cache would have read: all turns but the last
    two.
    """
    before = sum(len(str(message.get("content") or "")) for message in body["messages"][:-2]) // 4
    return ScriptedAnswer(ANSWER, cached_tokens=before)


def _configured(folder: Path, url: str) -> Path:
    key, config = folder / "key", folder / "upstream.yaml"
    key.write_text("demo-key")
    server = {
        "name": "scripted",
        "base_url": url,
        "key_file": str(key),
        "models": [{"name": MODEL}],
    }
    config.write_text(yaml.safe_dump({"upstreams": {"servers": [server]}}))
    return config


async def _agent(stack: Stack, tenant: str, number: int) -> list[tuple[Any, float, int]]:
    """One agent's run: each step reads a tool's result and asks again.

    Receipt, ms to the first piece, and pieces of each answer.
    """
    request = router_pb2.GenerateStreamRequest()
    options, task = request.options, request.task
    options.model, options.run_id, options.cache.bypass = MODEL, f"chat-{number}", True
    task.messages.add(
        role="system",
        content=f"You plan reserves.\nRequest id: req-{number}-5f3a9c11\nAnswer in one sentence.",
    )
    done = []
    for step in range(STEPS):
        task.messages.add(role="user", content=f"step {step}: what about district {number}")
        asked = task.messages.add(role="assistant")
        asked.tool_calls.add(id=f"c{step}", name="levels", arguments_json="{}")
        levels = [
            {"basin": f"b{basin}", "level_m": basin * 1.5, "inflow": None} for basin in range(8)
        ]
        task.messages.add(
            role="tool", content=json.dumps(levels, indent=4), tool_call_id=f"c{step}"
        )
        began, first, pieces = time.perf_counter(), 0.0, []
        async for piece in stack.router.GenerateStream(
            request, metadata=stack.metadata(tenant), timeout=20
        ):
            if piece.HasField("receipt"):
                receipt = piece.receipt
            elif piece.chunk.delta:
                first = first or (time.perf_counter() - began) * 1e3
                pieces.append(piece.chunk.delta)
        task.messages.add(role="assistant", content="".join(pieces))
        done.append((receipt, first, len(pieces)))
    return done


def _table(rows: list[tuple[Any, float, int]], connections: int, requests: int) -> Table:
    title = (
        f"{requests} calls went over {connections} connections; the upstream takes "
        f"{FIRST_S * 1e3:.0f} ms to its first word"
    )
    table = Table("", "micro-dollars", title=title)
    savings: dict[str, int] = {}
    for receipt, _, _ in rows:
        for saving in receipt.savings:
            savings[saving.technique] = savings.get(saving.technique, 0) + saving.microusd
    table.add_row(
        "full price", f"{sum(receipt.cost.full_price_microusd for receipt, _, _ in rows):,}"
    )
    for technique, microusd in sorted(savings.items()):
        table.add_row(f"saved by {technique}", f"{microusd:,}")
    table.add_row("paid", f"{sum(receipt.cost.paid_microusd for receipt, _, _ in rows):,}")
    table.add_row("first piece, p50 ms", f"{statistics.median(first for _, first, _ in rows):.1f}")
    table.add_row("pieces an answer", f"{statistics.mean(pieces for _, _, pieces in rows):.0f}")
    return table
