"""A client's batch that is larger than ours: taken apart, served in parts, and put together again.

Rows are what is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.batcher.queue import Served
from penstock.tasks.texts import texts_tokens

T = TypeVar("T")


def parts(task: inference_pb2.Task, most_rows: int) -> list[inference_pb2.Task]:
    """The task in pieces of at most `most_rows` texts; tasks without texts are one piece."""
    kind = task.WhichOneof("task")
    texts = (
        task.embed.texts if kind == "embed" else task.classify.texts if kind == "classify" else ()
    )
    if len(texts) <= most_rows:
        return [task]
    pieces = []
    for start in range(0, len(texts), most_rows):
        some = texts[start : start + most_rows]
        if kind == "embed":
            pieces.append(inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=some)))
        else:
            whole = task.classify
            pieces.append(
                inference_pb2.Task(
                    classify=inference_pb2.ClassifyTask(
                        texts=some, examples=whole.examples, top_k=whole.top_k
                    )
                )
            )
    return pieces


def size_of(task: inference_pb2.Task, estimated_tokens: int) -> tuple[int, int]:
    """(rows, tokens) of a task; tokens from its texts where the caller gave no estimate."""
    kind = task.WhichOneof("task")
    texts: Sequence[str] = ()
    if kind == "embed":
        texts = task.embed.texts
    elif kind == "classify":
        texts = task.classify.texts
    elif kind == "generate":
        texts = ["".join(message.content for message in task.generate.messages)]
    rows = max(1, len(texts))
    return rows, max(rows, estimated_tokens or texts_tokens(texts))


async def together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All answers, or the first failure; then the others are cancelled, so that nothing is computed
    for nobody.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def join(served: Sequence[Served]) -> Served:
    """One answer from the parts', in their order: usage and compute time summed, the longest wait,
    the largest batch.
    """
    whole = inference_pb2.TaskResult()
    for part in served:
        if part.result.WhichOneof("result") == "embed":
            whole.embed.embeddings.extend(part.result.embed.embeddings)
        else:
            whole.classify.classifications.extend(part.result.classify.classifications)
        whole.usage.input_tokens += part.result.usage.input_tokens
        whole.compute_ms += part.result.compute_ms
        whole.revision = part.result.revision
    receipt = common_pb2.BatchReceipt(
        queued_ms=max(part.receipt.queued_ms for part in served),
        batch_size=max(part.receipt.batch_size for part in served),
        release_reason="split",
    )
    return Served(whole, receipt, served[-1].load)
