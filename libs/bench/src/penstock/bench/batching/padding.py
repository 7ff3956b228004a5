"""Padding on a model that pads: the serving queue against first come, first served.

The original FP32 model runs a batch as one rectangle. Both sides get the same texts of mixed
lengths from the same number of callers, in turns. Queue, scheduler, batch former and learned cost
are those that serve; lengths are estimated from bytes as in serving, and padding is counted in the
model's own tokens. Only batches built while at least a full batch was waiting count, because before
an idle model there is nothing to choose from.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.queue.instance_profile import FixedLimit
from penstock.batcher.queue.instance_queue import InstanceQueue
from penstock.batcher.queue.knobs import KnobTable
from penstock.batcher.queue.requests import InstanceResult, OneResult, PendingRequest
from penstock.batcher.settings import BatchingSection, KnobsSection
from penstock.batcher.split_merge import task_size
from penstock.bench.batching.texts import MAX_MODEL_TOKENS, mixed_texts
from penstock.bench.harness.load import closed_loop
from penstock.bench.harness.options import Options
from penstock.bench.harness.processes import home_folder
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
    """Tokens of the batches.

    Attributes:
        real_tokens: of batches built while a full one was waiting.
        padded_tokens: of the same batches, padding included.
        tokens: of all batches.
    """

    real_tokens: int = 0
    padded_tokens: int = 0
    tokens: int = 0

    def add(self, waiting: int, rows: Sequence[Encoded]) -> None:
        """Count a batch that was built while so many rows were waiting, its own included."""
        lengths = [len(ids) for ids, _ in rows]
        self.tokens += sum(lengths)
        if waiting >= ROWS:
            self.real_tokens += sum(lengths)
            self.padded_tokens += len(lengths) * max(lengths)

    @property
    def waste(self) -> float:
        """Share of padding.

        Raises:
            ValueError: a full batch was never waiting.
        """
        if not self.padded_tokens:
            raise ValueError("the load never filled a batch, so its padding cannot be measured")
        return 1.0 - self.real_tokens / self.padded_tokens


@dataclass
class PaddingModel:
    """The model that pads, and the token ids of each text."""

    model: TextModel
    encoded: dict[str, Encoded]

    @classmethod
    def load(cls, texts: Sequence[str]) -> PaddingModel:
        """Load the model and encode the texts.

        Raises:
            ValueError: the model does not pad.
        """
        model = TextModel.load(home_folder() / "models" / MODEL / "1")
        if model.card.rows_singly:
            raise ValueError(f"{MODEL} runs its rows singly and pads nothing")
        encoded = [
            (ids[:MAX_MODEL_TOKENS], types[:MAX_MODEL_TOKENS]) for ids, types in model.encode(texts)
        ]
        return cls(model, dict(zip(texts, encoded, strict=True)))

    async def run(self, rows: Sequence[Encoded]) -> None:
        """Compute one batch as one rectangle."""
        await asyncio.to_thread(self.model.run, rows)


class Side(Protocol):
    """One way of batching, with its tally."""

    tally: Tally

    async def serve(self, text: str) -> None:
        """Return once the text has been computed."""


class ServingQueue:
    """The serving queue before the model; it learns the model's cost."""

    def __init__(self, model: PaddingModel) -> None:
        self.tally = Tally()
        self._model = model
        knobs = KnobTable(BatchingSection(default=KnobsSection(max_batch_size=ROWS)))
        self._queue = InstanceQueue(self, FixedLimit(1), knobs, SystemClock())

    async def run_one(self, request: PendingRequest) -> OneResult:
        """Compute a batch of one for the queue."""
        await self._compute([request])
        return OneResult(inference_pb2.TaskResult(), common_pb2.LoadReport())

    async def run(
        self, model: str, requests: Sequence[PendingRequest]
    ) -> AsyncIterator[InstanceResult]:
        """Compute a batch for the queue."""
        await self._compute(requests)
        for index in range(len(requests)):
            yield index, inference_pb2.MemberResult(index=index, status=OK), common_pb2.LoadReport()

    async def _compute(self, requests: Sequence[PendingRequest]) -> None:
        rows = [self._model.encoded[request.task.embed.texts[0]] for request in requests]
        self.tally.add(len(requests) + len(self._queue.waiting), rows)
        await self._model.run(rows)

    async def serve(self, text: str) -> None:
        """Queue a text and wait for it."""
        task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text]))
        await self._queue.submit(task, MODEL, Call(), task_size(task, 0))


class FirstComeQueue:
    """First come, first served, as many rows as wait, up to a full batch."""

    def __init__(self, model: PaddingModel) -> None:
        self.tally = Tally()
        self._model = model
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def serve(self, text: str) -> None:
        """Queue a text and wait for it."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, done))
        if self._running is None:
            self._running = asyncio.create_task(self._run_until_empty())
        await done

    async def _run_until_empty(self) -> None:
        while self._waiting:
            waiting = len(self._waiting)
            batch = [self._waiting.popleft() for _ in range(min(ROWS, waiting))]
            rows = [self._model.encoded[text] for text, _ in batch]
            self.tally.add(waiting, rows)
            await self._model.run(rows)
            for _, done in batch:
                done.set_result(None)
        self._running = None


class Turn(NamedTuple):
    """One round: batches of both sides, and the tokens a second of ours over the other's."""

    ours: Tally
    first_come: Tally
    gain: float


def figures(turns: Sequence[Turn]) -> dict[str, float]:
    """Padding of both sides over all rounds, and the median gain.

    Raises:
        ValueError: a full batch was never waiting.
    """
    return {
        "padding_waste": _together(turn.ours for turn in turns).waste,
        "padding_waste_fifo": _together(turn.first_come for turn in turns).waste,
        "fp32_vs_fifo_tokens": statistics.median(turn.gain for turn in turns),
    }


def _together(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.real_tokens += tally.real_tokens
        total.padded_tokens += tally.padded_tokens
        total.tokens += tally.tokens
    return total


def measure(options: Options) -> list[Turn]:
    """The rounds, in which both sides take turns."""
    texts = mixed_texts(options, TEXTS, random.Random(1))
    return asyncio.run(_measure(PaddingModel.load(texts), texts, options))


async def _measure(model: PaddingModel, texts: Sequence[str], options: Options) -> list[Turn]:
    rounds, seconds = (1, 2.0) if options.quick else (8, 4.0)
    ours = ServingQueue(model)
    first_come = FirstComeQueue(model)
    await _load(ours, texts, seconds / 4)  # the queue learns what a batch costs
    turns = []
    for _ in range(rounds):
        ours.tally, first_come.tally = Tally(), Tally()
        rates = [await _load(side, texts, seconds) for side in (ours, first_come)]
        turns.append(Turn(ours.tally, first_come.tally, rates[0] / rates[1]))
    return turns


async def _load(side: Side, texts: Sequence[str], seconds: float) -> float:
    """Tokens a second of one turn."""
    tokens_before = side.tally.tokens
    began_s = time.perf_counter()
    await closed_loop(lambda number: side.serve(texts[number % len(texts)]), CALLERS, seconds)
    return (side.tally.tokens - tokens_before) / (time.perf_counter() - began_s)
