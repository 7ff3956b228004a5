"""Client batches larger than `max_batch_size`: split into parts, and their answers merged."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.queue.pending_request import Answer, TaskSize
from penstock.service.purity import pure
from penstock.tasks.texts import texts_tokens

T = TypeVar("T")


@pure
def split(task: inference_pb2.Task, max_rows: int) -> list[inference_pb2.Task]:
    """The task in parts of at most `max_rows` texts; a task without texts is one part."""
    kind = task.WhichOneof("task")
    texts: Sequence[str] = ()
    if kind == "embed":
        texts = task.embed.texts
    elif kind == "classify":
        texts = task.classify.texts
    if len(texts) <= max_rows:
        return [task]
    parts = _slices(texts, max_rows)
    if kind == "embed":
        return [inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=part)) for part in parts]
    return [_classify_part(task.classify, part) for part in parts]


def _slices(texts: Sequence[str], max_rows: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), max_rows):
        yield texts[start : start + max_rows]


def _classify_part(task: inference_pb2.ClassifyTask, texts: Sequence[str]) -> inference_pb2.Task:
    part = inference_pb2.ClassifyTask(texts=texts, examples=task.examples, top_k=task.top_k)
    return inference_pb2.Task(classify=part)


@pure
def task_size(task: inference_pb2.Task, estimated_tokens: int) -> TaskSize:
    """Rows and tokens of a task; the tokens are estimated from its texts where the caller gave no
    estimate (0).
    """
    kind = task.WhichOneof("task")
    texts: Sequence[str] = ()
    if kind == "embed":
        texts = task.embed.texts
    elif kind == "classify":
        texts = task.classify.texts
    elif kind == "generate":
        texts = ["".join(message.content for message in task.generate.messages)]
    rows = max(1, len(texts))
    return TaskSize(rows, max(rows, estimated_tokens or texts_tokens(texts)))


async def gather_or_cancel(parts: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order, or the first failure.

    After a failure the other parts are cancelled, so that nothing is computed that nobody reads.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pure
def merge(answers: Sequence[Answer]) -> Answer:
    """One answer from those of the parts, in their order.

    Usage and compute time are summed; the receipt has the longest wait and the largest batch.
    """
    merged = inference_pb2.TaskResult()
    for answer in answers:
        part = answer.result
        if part.WhichOneof("result") == "embed":
            merged.embed.embeddings.extend(part.embed.embeddings)
        else:
            merged.classify.classifications.extend(part.classify.classifications)
        merged.usage.input_tokens += part.usage.input_tokens
        merged.compute_ms += part.compute_ms
        merged.revision = part.revision
    receipt = common_pb2.BatchReceipt(
        queued_ms=max(answer.receipt.queued_ms for answer in answers),
        batch_size=max(answer.receipt.batch_size for answer in answers),
        release_reason="split",
    )
    return Answer(merged, receipt, answers[-1].load)
