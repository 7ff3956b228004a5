"""Padding where the model pads: the original FP32 model runs a batch as one rectangle, in the
serving queue and first come, first served.

Both sides get the same texts of mixed lengths from the same number of callers, in turns. The queue,
its scheduler, its former and the cost that it learns are those that serve; lengths are estimated
from bytes as in serving, and padding is counted in the model's own tokens. Only batches built while
at least a full batch was waiting count: before an idle model there is nothing to choose from.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.concurrency import FixedLimit
from penstock.batcher.knobs import KnobTable
from penstock.batcher.queue.instance_queue import InstanceQueue
from penstock.batcher.queue.pending_request import InstanceResult, PendingRequest
from penstock.batcher.settings import BatchingSection, KnobsSection
from penstock.batcher.split_merge import task_size
from penstock.bench.batching.texts import LONGEST, mixed_texts
from penstock.bench.harness.load import closed_loop
from penstock.bench.harness.options import Options
from penstock.onnx.encoder import Encoded, TextModel
from penstock.rpc.call import Call
from penstock.rpc.errors import OK
from penstock.service.clock import SystemClock

MODEL = "all-MiniLM-L6-v2-fp32"
ROWS = 32
CALLERS = 96
TEXTS = 2_000


@dataclass
class Tally:
    """Batches that were built while a full one was waiting, and all tokens that were computed in
    how many seconds.
    """

    real: int = 0
    padded: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def note(self, candidates: int, rows: Sequence[Encoded]) -> None:
        lengths = [len(ids) for ids, _ in rows]
        self.tokens += sum(lengths)
        if candidates >= ROWS:
            self.real += sum(lengths)
            self.padded += len(lengths) * max(lengths)

    @property
    def waste(self) -> float:
        if not self.padded:
            raise ValueError("the load never filled a batch, so its padding says nothing")
        return 1.0 - self.real / self.padded

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


@dataclass
class Model:
    """The model that pads, and what each text is to it."""

    model: TextModel
    rows: dict[str, Encoded]

    @classmethod
    def load(cls, texts: Sequence[str]) -> Model:
        home = Path(os.environ.get("PENSTOCK_HOME", ".penstock")) / "models"
        model = TextModel.load(home / MODEL / "1")
        if model.card.rows_singly:
            raise ValueError(f"{MODEL} runs its rows singly and pads nothing")
        coded = [(ids[:LONGEST], types[:LONGEST]) for ids, types in model.encode(texts)]
        return cls(model, dict(zip(texts, coded, strict=True)))

    async def run(self, rows: Sequence[Encoded]) -> None:
        """One batch, one rectangle."""
        await asyncio.to_thread(self.model.run, rows)


class Side(Protocol):
    """Serves texts."""

    tally: Tally

    async def ask(self, text: str) -> None: ...


class Ours:
    """The serving queue before the model; it learns the model's cost as it goes."""

    def __init__(self, model: Model) -> None:
        self.tally = Tally()
        self._model = model
        knobs = KnobTable(BatchingSection(default=KnobsSection(max_batch_size=ROWS)))
        self._queue = InstanceQueue(self, FixedLimit(1), knobs, SystemClock())

    async def run(
        self, model: str, requests: Sequence[PendingRequest]
    ) -> AsyncIterator[InstanceResult]:
        rows = [self._model.rows[request.task.embed.texts[0]] for request in requests]
        self.tally.note(len(requests) + len(self._queue.waiting), rows)
        await self._model.run(rows)
        for index in range(len(requests)):
            yield index, inference_pb2.MemberResult(index=index, status=OK), common_pb2.LoadReport()

    async def ask(self, text: str) -> None:
        task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text]))
        await self._queue.submit(task, MODEL, Call(), task_size(task, 0))


@dataclass
class Fifo:
    """First come, first served, as many as there are up to a full batch."""

    model: Model
    tally: Tally = field(default_factory=Tally)
    _waiting: deque[tuple[str, asyncio.Future[None]]] = field(default_factory=deque)
    _running: asyncio.Task[None] | None = None

    async def ask(self, text: str) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, done))
        if self._running is None:
            self._running = asyncio.create_task(self._work())
        await done

    async def _work(self) -> None:
        while self._waiting:
            candidates = len(self._waiting)
            batch = [self._waiting.popleft() for _ in range(min(ROWS, candidates))]
            rows = [self.model.rows[text] for text, _ in batch]
            self.tally.note(candidates, rows)
            await self.model.run(rows)
            for _, done in batch:
                done.set_result(None)
        self._running = None


def measure(options: Options) -> dict[str, float]:
    """`padding_waste` and `padding_waste_fifo`, and the real tokens a second of one over the
    other.
    """
    texts = mixed_texts(options, TEXTS, random.Random(1))
    return asyncio.run(_measure(Model.load(texts), texts, options))


async def _measure(model: Model, texts: Sequence[str], options: Options) -> dict[str, float]:
    rounds, seconds = (1, 2.0) if options.quick else (3, 8.0)
    ours, fifo = Ours(model), Fifo(model)
    await _load(ours, texts, seconds / 4)  # the queue learns what a batch costs
    ours.tally = Tally()
    gains = []
    for _ in range(rounds):
        rates = [await _load(side, texts, seconds) for side in (ours, fifo)]
        gains.append(rates[0] / rates[1])
    return {
        "padding_waste": ours.tally.waste,
        "padding_waste_fifo": fifo.tally.waste,
        "fp32_vs_fifo_tokens": statistics.median(gains),
    }


async def _load(side: Side, texts: Sequence[str], seconds: float) -> float:
    """Tokens a second of one turn."""
    before, began = side.tally.tokens, time.perf_counter()
    await closed_loop(lambda number: side.ask(texts[number % len(texts)]), CALLERS, seconds)
    took = time.perf_counter() - began
    side.tally.seconds += took
    return (side.tally.tokens - before) / took
