"""`embed`: texts to vectors. Each text is a row; answers depend on nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.inference.v1 import inference_pb2
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


class Embed:
    """See Kind."""

    name = "embed"
    number = inference_pb2.TASK_KIND_EMBED
    operation = "embeddings"
    repeatable = True
    conversational = False
    cheap = True
    open_ended = False
    streams = False
    default_model = ENCODER

    def validate(self, task: Task, at: str) -> None:
        check_texts(task.embed.texts, at)

    def public_field(self, field: str) -> str:
        return field.removeprefix("task.embed.")

    def estimate(self, task: Task, count: TokenCounter | None = None) -> Estimate:
        return text_estimate(task.embed.texts, count)

    def rows(self, task: Task) -> int:
        return max(1, len(task.embed.texts))

    def split(self, task: Task, max_rows: int) -> list[Task]:
        texts = task.embed.texts
        if len(texts) <= max_rows:
            return [task]
        return [
            Task(embed=inference_pb2.EmbedTask(texts=texts[start : start + max_rows]))
            for start in range(0, len(texts), max_rows)
        ]

    def merge(self, task: Task, parts: Sequence[TaskResult], into: TaskResult) -> None:
        for part in parts:
            into.embed.embeddings.extend(part.embed.embeddings)

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
