"""`infer`: named tensors in, named tensors out, for models of any shape. One piece of work."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.inference.v1 import inference_pb2
from penstock.rpc.errors import internal, invalid
from penstock.service.default_models import ENCODER
from penstock.tasks.kind import (
    BYTES_PER_TOKEN,
    OVERHEAD_TOKENS,
    Estimate,
    SimilarPart,
    Task,
    TaskResult,
    TokenCounter,
)


class Infer:
    """See Kind."""

    name = "infer"
    number = inference_pb2.TASK_KIND_INFER
    operation = "invoke"
    repeatable = True
    conversational = False
    cheap = True
    open_ended = False
    streams = False
    default_model = ENCODER

    def validate(self, task: Task, at: str) -> None:
        if not task.infer.inputs:
            raise invalid(f"{at}inputs", "needs at least one tensor")

    def public_field(self, field: str) -> str:
        inner = "task.infer."
        return f"task.{field.removeprefix(inner)}" if field.startswith(inner) else field

    def estimate(self, task: Task, count: TokenCounter | None = None) -> Estimate:
        size = sum(len(tensor.data) for tensor in task.infer.inputs)
        bound = task.ByteSize() + OVERHEAD_TOKENS
        return Estimate(1, max(1, size // BYTES_PER_TOKEN), 0, bound)

    def rows(self, task: Task) -> int:
        return 1

    def split(self, task: Task, max_rows: int) -> list[Task]:
        return [task]

    def merge(self, task: Task, parts: Sequence[TaskResult], into: TaskResult) -> None:
        raise internal("an infer task has no parts")

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
