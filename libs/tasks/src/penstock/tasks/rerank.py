"""`rerank`: documents by their relevance to a query. Each document is a row: a model of pairs reads
the query with each of them, so the query's tokens count once for each.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.inference.v1 import inference_pb2
from penstock.rpc.errors import invalid
from penstock.service.default_models import ENCODER
from penstock.tasks.kind import (
    Estimate,
    SimilarPart,
    Task,
    TaskResult,
    TokenCounter,
    check_texts,
    text_estimate,
)


class Rerank:
    """See Kind."""

    name = "rerank"
    number = inference_pb2.TASK_KIND_RERANK
    operation = "rerank"
    repeatable = True
    conversational = False
    cheap = False
    open_ended = False
    streams = False
    default_model = ENCODER

    def validate(self, task: Task, at: str) -> None:
        if not task.rerank.query.strip():
            raise invalid(f"{at}query", "is empty")
        check_texts(task.rerank.documents, at, "documents")

    def public_field(self, field: str) -> str:
        return field.removeprefix("task.rerank.")

    def estimate(self, task: Task, count: TokenCounter | None = None) -> Estimate:
        documents, query = text_estimate(task.rerank.documents, count), task.rerank.query
        once = text_estimate([query], count)
        rows = documents.rows
        return documents._replace(
            input_tokens=documents.input_tokens + rows * once.input_tokens,
            input_bound=documents.input_bound + rows * once.input_bound,
        )

    def rows(self, task: Task) -> int:
        return max(1, len(task.rerank.documents))

    def split(self, task: Task, max_rows: int) -> list[Task]:
        """Pieces that rank all of their own documents: the best of all are known at the end."""
        query, documents = task.rerank.query, task.rerank.documents
        if len(documents) <= max_rows:
            return [task]
        return [
            Task(
                rerank=inference_pb2.RerankTask(
                    query=query, documents=documents[start : start + max_rows]
                )
            )
            for start in range(0, len(documents), max_rows)
        ]

    def merge(self, task: Task, parts: Sequence[TaskResult], into: TaskResult) -> None:
        if len(parts) == 1:
            into.rerank.CopyFrom(parts[0].rerank)
            return
        scores: list[float] = []
        for part in parts:
            ranking = part.rerank.ranking
            by_index = {ranked.index: ranked.score for ranked in ranking}
            scores.extend(by_index[index] for index in range(len(ranking)))
        into.rerank.CopyFrom(ranking_of(scores, task.rerank.top_n))

    def confidence(self, result: TaskResult) -> float | None:
        return None

    def unshareable_because(self, task: Task, max_temperature: float, *, asked_for: bool) -> str:
        return ""

    def unstorable_because(
        self, task: Task, result: TaskResult, max_temperature: float, *, asked_for: bool
    ) -> str:
        return ""

    def similar_part(self, task: Task) -> SimilarPart | None:
        return None


def ranking_of(scores: Sequence[float], top_n: int) -> inference_pb2.RerankResult:
    """The documents of these scores, best first and equal ones in their order; the first `top_n`,
    or all for 0.
    """
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    result = inference_pb2.RerankResult()
    for index in order[: top_n or len(order)]:
        result.ranking.add(index=index, score=scores[index])
    return result
