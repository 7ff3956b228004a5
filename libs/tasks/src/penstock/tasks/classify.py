"""`classify`: a label for each text, by the model's own head or by examples. Each text is a row."""

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


class Classify:
    """See Kind."""

    name = "classify"
    number = inference_pb2.TASK_KIND_CLASSIFY
    operation = "invoke"
    repeatable = True
    conversational = False
    cheap = False
    open_ended = False
    streams = False
    default_model = ENCODER

    def validate(self, task: Task, at: str) -> None:
        check_texts(task.classify.texts, at)

    def public_field(self, field: str) -> str:
        return field.removeprefix("task.classify.")

    def estimate(self, task: Task, count: TokenCounter | None = None) -> Estimate:
        asked = task.classify
        return text_estimate(asked.texts, count, [item.text for item in asked.examples])

    def rows(self, task: Task) -> int:
        return max(1, len(task.classify.texts))

    def split(self, task: Task, max_rows: int) -> list[Task]:
        whole = task.classify
        if len(whole.texts) <= max_rows:
            return [task]
        return [
            Task(
                classify=inference_pb2.ClassifyTask(
                    texts=whole.texts[start : start + max_rows],
                    examples=whole.examples,
                    top_k=whole.top_k,
                )
            )
            for start in range(0, len(whole.texts), max_rows)
        ]

    def merge(self, task: Task, parts: Sequence[TaskResult], into: TaskResult) -> None:
        for part in parts:
            into.classify.classifications.extend(part.classify.classifications)

    def confidence(self, result: TaskResult) -> float | None:
        """The score of the least certain best label; 1 where there is no label."""
        best = [item.labels[0].score for item in result.classify.classifications if item.labels]
        return min(best, default=1.0)

    def unshareable_because(self, task: Task, max_temperature: float, *, asked_for: bool) -> str:
        return ""

    def unstorable_because(
        self, task: Task, result: TaskResult, max_temperature: float, *, asked_for: bool
    ) -> str:
        return ""

    def similar_part(self, task: Task) -> SimilarPart | None:
        return None
