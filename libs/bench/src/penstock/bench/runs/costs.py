"""What runs have cost by Penstock's account, against the books of the providers that served them.

A stack as `make up` starts it serves agents with subagents. Two hosted providers behind HTTP and
two classifiers count tokens as they do and bill them at prices that are no whole micro-dollars.
Providers fail before they work (500, 503, a reset connection) or bill what they never answer; one
is slow, so that calls are hedged and both tries are billed; a classifier is unsure, so that a
dearer one is asked; calls repeat, so that answers are reused; some are jobs. Each text names its
run and step, so that the books are kept by them.

Of a try without an answer no usage comes back: what it is taken to cost rests on the model's
tokenizer, which the configuration names. Calls are hedged only while the first try has surely
reached its provider: whether one that is cancelled on its way has, and is billed, nobody can know,
and Penstock counts it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from penstock.api.common.v1 import run_pb2
from penstock.api.router.v1 import runs_pb2
from penstock.bench.harness.processes import home_folder
from penstock.bench.runs.agents import Agents
from penstock.bench.runs.provider_books import (
    CHAT,
    HEDGED,
    PRICES,
    SURE,
    UNSURE,
    VECTORS,
    Books,
    Judge,
    Place,
    scripted_answer,
)
from penstock.service.default_models import ENCODER
from penstock.stack import ports
from penstock.stack.configuration import api_key
from penstock.stack.log import LogStream
from penstock.stack.stack import WholeStack, run_stack
from penstock.testkit.registered import Registration, registered_instance
from penstock.testkit.upstream import ScriptedUpstream
from rich.console import Console
from tokenizers import Tokenizer

TENANT, KEY = "bench", "psk-runs"
FLOOR = 0.8
WAITS = ("first_byte_timeout_ms", "silence_timeout_ms", "whole_timeout_ms")
SILENCE_MS = 1_500
"""After how long a provider's answer is given up."""


@dataclass(frozen=True)
class CostFigures:
    """What came of it."""

    runs: int
    error_picousd: int
    """The largest difference of a run and step."""
    billed_picousd: int
    calls: Counter[str]
    """By kind of cost."""
    failed: int
    """Calls that every provider failed."""

    @property
    def error_microusd(self) -> float:
        """The same in micro-dollars."""
        return self.error_picousd / 1e6


async def measure(folder: Path, runs: int, calls: int, seed: int = 0) -> CostFigures:
    """Let agents work and compare the books; the data of the stack is in `folder`.

    Args:
        runs: trees of a run and two subagents.
        calls: of each agent.
    """
    books, tokenizer_file = Books(), home_folder() / "models" / ENCODER / "1" / "tokenizer.json"
    count = _counter(tokenizer_file)
    async with (
        ScriptedUpstream(scripted_answer, count=count) as one,
        ScriptedUpstream(scripted_answer, count=count) as two,
        _stack(folder, [one, two], tokenizer_file) as stack,
        _judges(stack, books),
    ):
        agents = Agents(stack, TENANT, [one, two], seed)
        roots = [await agents.start() for _ in range(runs + 1)]
        await agents.hedge(roots[0])
        await agents.be_silent(roots[0])
        await asyncio.gather(*(agents.work(root, calls, 2) for root in roots[1:]))
        costs = [await agents.cost(root) for root in roots]
        for upstream in (one, two):
            books.read(upstream)
    return _compared(costs, books, agents.failed)


def _compared(costs: list[runs_pb2.GetRunCostResponse], books: Books, failed: int) -> CostFigures:
    said, calls = Counter[Place](), Counter[str]()
    for cost in costs:
        for row in cost.costs:
            said[row.run_id, row.step] += row.amount.microusd * 10**6 - row.rounding_picousd
            kind = run_pb2.RunCostKind.Name(row.kind).removeprefix("RUN_COST_KIND_").lower()
            calls[kind] += row.amount.calls
    places = said.keys() | books.billed.keys()
    error = max(abs(said[place] - books.billed[place]) for place in places)
    runs = sum(len(cost.runs) for cost in costs)
    return CostFigures(runs, error, books.billed.total(), calls, failed)


def _counter(tokenizer_file: Path) -> Callable[[str], int]:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text).ids)


@contextlib.asynccontextmanager
async def _judges(stack: WholeStack, books: Books) -> AsyncIterator[None]:
    """The two classifiers, registered."""
    async with contextlib.AsyncExitStack() as owned:
        for model, confidence in ((UNSURE, FLOOR - 0.1), (SURE, 0.95)):
            registration = Registration(model, model, ("classify",), concurrency=16)
            await owned.enter_async_context(
                registered_instance(
                    Judge(model, confidence, books),
                    registration,
                    stack.addresses["registry"],
                    stack.registering(),
                )
            )
            await stack.wait_for_instances(model, 1, TENANT)
        yield


@contextlib.asynccontextmanager
async def _stack(
    folder: Path, upstreams: list[ScriptedUpstream], tokenizer_file: Path
) -> AsyncIterator[WholeStack]:
    config = folder / "penstock.yaml"
    config.write_text(yaml.safe_dump(_config(upstreams, tokenizer_file)))
    log = LogStream(Console(quiet=True))
    async with run_stack(ports.free(), folder, config, {TENANT: KEY}, log) as stack:
        for model, count in ((CHAT, 2), (HEDGED, 2), (VECTORS, 1)):
            await stack.wait_for_instances(model, count, TENANT)
        yield stack


def _config(upstreams: list[ScriptedUpstream], tokenizer_file: Path) -> dict[str, object]:
    vectors, hedged = ({"name": name, "tasks": ["embed"]} for name in (VECTORS, HEDGED))
    models = [[{"name": CHAT}, hedged, vectors], [{"name": CHAT}, hedged]]
    judges = [
        {"name": name, "quality": quality, "tasks": ["classify"]}
        for name, quality in ((UNSURE, 0.6), (SURE, 0.9))
    ]
    counted = {"name": HEDGED, "tasks": ["embed"], "tokenizer_file": str(tokenizer_file)}
    return {
        "keys": {"api": [api_key(TENANT, KEY)]},
        "prices": {"models": [_price(name, prices) for name, prices in PRICES.items()]},
        "routes": {"models": [*judges, counted], "cascade_floor": FLOOR},
        "instances": [],
        "upstreams": {
            "servers": [
                {
                    "name": f"provider-{number}",
                    "base_url": upstream.url,
                    "models": models[number],
                    **dict.fromkeys(WAITS, SILENCE_MS),
                }
                for number, upstream in enumerate(upstreams)
            ]
        },
    }


def _price(name: str, prices: Mapping[str, int]) -> dict[str, object]:
    return {"name": name, **{f"{kind}_microusd_per_mtok": price for kind, price in prices.items()}}
