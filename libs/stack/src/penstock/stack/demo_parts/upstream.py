"""Agents that chat with a simulated upstream: streams, their cost, and what the optimiser saved."""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.stack.stack import Stack
from penstock.testkit.upstream import ScriptedAnswer, ScriptedUpstream
from rich.console import Console
from rich.table import Table

TITLE = "upstream: agents chat over pooled connections (upstream simulated)"
MODEL = "demo-chat"
PRICE = {
    "name": MODEL,
    "input_microusd_per_mtok": 3_000_000,
    "cached_input_microusd_per_mtok": 300_000,
    "output_microusd_per_mtok": 15_000_000,
}
KEY = "demo-key"
AGENTS, STEPS = 4, 6
FIRST_TOKEN_S, PER_WORD_S = 0.030, 0.002
CALL_TIMEOUT_S = 20
ANSWER = "the reserve covers the evening peak with a margin of two hours in every district but one"
SYSTEM_PROMPT = "You plan reserves.\nRequest id: req-{}-5f3a9c11\nAnswer in one sentence."


@dataclass(frozen=True)
class Streamed:
    """A streamed answer: text, number of pieces, time to the first one, and the receipt."""

    text: str
    pieces: int
    first_piece_ms: float
    receipt: common_pb2.Receipt


async def run(stack: Stack, console: Console) -> dict[str, float]:
    """Start an upstream and the service for it, and let four agents make six steps each."""
    tenant = next(iter(stack.keys))
    with tempfile.TemporaryDirectory(prefix="penstock-demo-upstream-") as folder:
        async with ScriptedUpstream(
            _answer, first_token_s=FIRST_TOKEN_S, per_word_s=PER_WORD_S, key=KEY
        ) as upstream:
            config = _write_config(Path(folder), upstream.url)
            service = stack.plan.upstream("scripted", config_file=str(config))
            await stack.supervisor.start((service,))
            await stack.wait_for_instances(MODEL, 1, tenant)
            runs = await asyncio.gather(*(_agent(stack, tenant, n) for n in range(AGENTS)))
            connections = upstream.connections
            calls = len(upstream.requests)
    answers = [answer for run_answers in runs for answer in run_answers]
    console.print(_table(answers, connections, calls))
    return _figures(answers, connections)


def _answer(body: dict[str, Any]) -> ScriptedAnswer:
    """Always the same words; all messages but the last two count as read from a prefix cache."""
    known = body["messages"][:-2]
    characters = sum(len(str(message.get("content") or "")) for message in known)
    return ScriptedAnswer(ANSWER, cached_tokens=characters // 4)


def _write_config(folder: Path, url: str) -> Path:
    key_file = folder / "key"
    key_file.write_text(KEY)
    server = {
        "name": "scripted",
        "base_url": url,
        "key_file": str(key_file),
        "models": [{"name": MODEL}],
    }
    config = folder / "upstream.yaml"
    config.write_text(yaml.safe_dump({"upstreams": {"servers": [server]}}))
    return config


async def _agent(stack: Stack, tenant: str, number: int) -> list[Streamed]:
    """One agent's run: each step reads the result of a tool and asks again."""
    request = router_pb2.GenerateStreamRequest()
    request.options.model = MODEL
    request.options.run_id = f"chat-{number}"
    request.options.cache.bypass = True
    request.task.messages.add(role=inference_pb2.ROLE_SYSTEM, content=SYSTEM_PROMPT.format(number))
    answers = []
    for step in range(STEPS):
        _add_step(request.task, number, step)
        answer = await _stream(stack, tenant, request)
        request.task.messages.add(role=inference_pb2.ROLE_ASSISTANT, content=answer.text)
        answers.append(answer)
    return answers


def _add_step(task: inference_pb2.GenerateTask, number: int, step: int) -> None:
    """A question, the call of a tool and its result."""
    task.messages.add(
        role=inference_pb2.ROLE_USER, content=f"step {step}: what about district {number}"
    )
    call = task.messages.add(role=inference_pb2.ROLE_ASSISTANT)
    call.tool_calls.add(id=f"c{step}", name="levels", arguments_json="{}")
    levels = [{"basin": f"b{basin}", "level_m": basin * 1.5, "inflow": None} for basin in range(8)]
    task.messages.add(
        role=inference_pb2.ROLE_TOOL, content=json.dumps(levels, indent=4), tool_call_id=f"c{step}"
    )


async def _stream(stack: Stack, tenant: str, request: router_pb2.GenerateStreamRequest) -> Streamed:
    started_s = time.perf_counter()
    first_piece_ms = 0.0
    pieces: list[str] = []
    receipt = common_pb2.Receipt()
    async for part in stack.router.GenerateStream(
        request, metadata=stack.metadata(tenant), timeout=CALL_TIMEOUT_S
    ):
        if part.HasField("receipt"):
            receipt = part.receipt
        elif part.chunk.delta:
            first_piece_ms = first_piece_ms or (time.perf_counter() - started_s) * 1e3
            pieces.append(part.chunk.delta)
    return Streamed("".join(pieces), len(pieces), first_piece_ms, receipt)


def _figures(answers: Sequence[Streamed], connections: int) -> dict[str, float]:
    full = sum(answer.receipt.cost.full_price_microusd for answer in answers)
    paid = sum(answer.receipt.cost.paid_microusd for answer in answers)
    saved = _savings(answers).total()
    first_token_ms = statistics.median(answer.first_piece_ms for answer in answers)
    return {
        "upstream_answers": len(answers),
        "upstream_first_token_ms": round(first_token_ms, 1),
        "upstream_connections": connections,
        "upstream_paid_microusd": paid,
        "upstream_cost_cut": round(saved / full, 3),
        "upstream_unattributed_microusd": full - paid - saved,
    }


def _savings(answers: Sequence[Streamed]) -> Counter[str]:
    """Micro-dollars saved by technique."""
    savings = Counter[str]()
    for answer in answers:
        for saving in answer.receipt.savings:
            savings[saving.technique] += saving.microusd
    return savings


def _table(answers: Sequence[Streamed], connections: int, calls: int) -> Table:
    title = (
        f"{calls} calls over {connections} connections; the upstream takes "
        f"{FIRST_TOKEN_S * 1e3:.0f} ms to its first word"
    )
    table = Table("", "micro-dollars", title=title)
    full = sum(answer.receipt.cost.full_price_microusd for answer in answers)
    paid = sum(answer.receipt.cost.paid_microusd for answer in answers)
    table.add_row("full price", f"{full:,}")
    for technique, microusd in sorted(_savings(answers).items()):
        table.add_row(f"saved by {technique}", f"{microusd:,}")
    table.add_row("paid", f"{paid:,}")
    first_piece_ms = statistics.median(answer.first_piece_ms for answer in answers)
    table.add_row("time to first piece, p50 ms", f"{first_piece_ms:.1f}")
    table.add_row("pieces an answer", f"{statistics.mean(a.pieces for a in answers):.0f}")
    return table
