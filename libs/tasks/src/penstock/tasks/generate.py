"""`generate`: a conversation is continued, whole or piece by piece. One piece of work."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.inference.v1 import inference_pb2
from penstock.rpc.errors import internal, invalid
from penstock.service.default_models import CHAT
from penstock.tasks.kind import (
    BYTES_PER_TOKEN,
    OVERHEAD_TOKENS,
    Estimate,
    SimilarPart,
    Task,
    TaskResult,
)
from penstock.tasks.roles import ROLE_NAMES, ROLES

UNFINISHED = {
    inference_pb2.FINISH_REASON_LENGTH: "truncated",
    inference_pb2.FINISH_REASON_FILTERED: "filtered",
    inference_pb2.FINISH_REASON_UNSPECIFIED: "not ended",
}


class Generate:
    """See Kind."""

    name = "generate"
    number = inference_pb2.TASK_KIND_GENERATE
    operation = "chat"
    repeatable = False
    conversational = True
    cheap = False
    open_ended = True
    streams = True
    default_model = CHAT

    def validate(self, task: Task, at: str) -> None:
        asked = task.generate
        if not asked.messages:
            raise invalid(f"{at}messages", "needs at least one message")
        for index, message in enumerate(asked.messages):
            _check_message(message, f"{at}messages[{index}].")
        if asked.HasField("temperature") and not 0 <= asked.temperature <= 2:
            raise invalid(f"{at}temperature", "must lie between 0 and 2")
        if asked.HasField("top_p") and not 0 < asked.top_p <= 1:
            raise invalid(f"{at}top_p", "must lie above 0 and at most at 1")

    def public_field(self, field: str) -> str:
        inner = "task.generate."
        return f"task.{field.removeprefix(inner)}" if field.startswith(inner) else field

    def estimate(self, task: Task) -> Estimate:
        asked = task.generate
        text = sum(len(message.content) for message in asked.messages)
        bound = task.ByteSize() + OVERHEAD_TOKENS * max(1, len(asked.messages))
        return Estimate(1, max(1, text // BYTES_PER_TOKEN), asked.max_tokens, bound)

    def rows(self, task: Task) -> int:
        return 1

    def split(self, task: Task, max_rows: int) -> list[Task]:
        return [task]

    def merge(self, task: Task, parts: Sequence[TaskResult], into: TaskResult) -> None:
        raise internal("a generate task has no parts")

    def confidence(self, result: TaskResult) -> float | None:
        return None

    def unstorable_because(
        self, task: Task, result: TaskResult, max_temperature: float, *, asked_for: bool
    ) -> str:
        asked, answer = task.generate, result.generate
        if why := UNFINISHED.get(answer.finish_reason):
            return why
        harmless = {tool.name for tool in asked.tools if tool.read_only}
        if any(call.name not in harmless for call in answer.message.tool_calls):
            return "tool call with side effects"
        if asked.HasField("temperature") and asked.temperature > max_temperature and not asked_for:
            return "temperature"
        return ""

    def similar_part(self, task: Task) -> SimilarPart | None:
        """The last turn, where it is the user's."""
        messages = task.generate.messages
        if (
            not messages
            or messages[-1].role != inference_pb2.ROLE_USER
            or not messages[-1].content.strip()
        ):
            return None
        rest = inference_pb2.GenerateTask()
        rest.CopyFrom(task.generate)
        del rest.messages[-1]
        return SimilarPart(messages[-1].content, rest.SerializeToString(deterministic=True))


def _check_message(message: inference_pb2.Message, at: str) -> None:
    if message.role not in ROLE_NAMES:
        known = ", ".join(inference_pb2.Role.Name(role) for role in ROLES.values())
        raise invalid(f"{at}role", f"is missing or unknown; say one of {known}")
    is_result = message.role == inference_pb2.ROLE_TOOL
    if not message.content and not message.tool_calls and not is_result:
        raise invalid(f"{at}content", "is empty")
    if is_result and not message.tool_call_id:
        raise invalid(f"{at}tool_call_id", "is empty")
