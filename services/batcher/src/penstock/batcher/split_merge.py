"""Client batches larger than `max_batch_size`: their parts computed, and the answers merged."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.queue.requests import Answer, TaskSize
from penstock.service.purity import pure
from penstock.tasks.kind import Task
from penstock.tasks.kinds import kind_of

T = TypeVar("T")


@pure
def task_size(task: Task, estimated_tokens: int) -> TaskSize:
    """Rows and tokens of a task; the tokens are estimated where the caller gave no estimate (0)."""
    kind = kind_of(task)
    rows = kind.rows(task)
    return TaskSize(rows, max(rows, estimated_tokens or kind.estimate(task).input_tokens))


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
def merge(task: Task, answers: Sequence[Answer]) -> Answer:
    """One answer from those of a task's parts, in their order.

    Usage and compute time are summed; the receipt has the longest wait and the largest batch.
    """
    merged = inference_pb2.TaskResult()
    kind_of(task).merge(task, [answer.result for answer in answers], merged)
    for answer in answers:
        merged.usage.input_tokens += answer.result.usage.input_tokens
        merged.compute_ms += answer.result.compute_ms
        merged.revision = answer.result.revision
    receipt = common_pb2.BatchReceipt(
        queued_ms=max(answer.receipt.queued_ms for answer in answers),
        batch_size=max(answer.receipt.batch_size for answer in answers),
        release_reason="split",
    )
    return Answer(merged, receipt, answers[-1].load)
