"""`generate`: a conversation is continued, whole or piece by piece. One piece of work."""

from __future__ import annotations

import json
from collections.abc import Sequence

from penstock.api.inference.v1 import inference_pb2
from penstock.rpc.errors import internal, invalid
from penstock.service.default_models import CHAT
from penstock.tasks.conversation_size import conversation_estimate
from penstock.tasks.kind import Estimate, SimilarPart, Task, TaskResult, TokenCounter
from penstock.tasks.roles import ROLE_NAMES, ROLES
from penstock.tasks.wire_request import check_wire_request, settings_of

UNFINISHED = {
    inference_pb2.FINISH_REASON_LENGTH: "truncated",
    inference_pb2.FINISH_REASON_FILTERED: "filtered",
    inference_pb2.FINISH_REASON_REFUSED: "refused",
    inference_pb2.FINISH_REASON_PAUSED: "not ended",
    inference_pb2.FINISH_REASON_UNSPECIFIED: "not ended",
}
MAX_TOP_LOGPROBS = 20
EFFORTS = ("", "none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Values of `reasoning.effort`."""


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
        if asked.top_logprobs > MAX_TOP_LOGPROBS:
            raise invalid(f"{at}top_logprobs", f"must be at most {MAX_TOP_LOGPROBS}")
        if asked.reasoning.effort not in EFFORTS:
            raise invalid(f"{at}reasoning.effort", f"is not one of {', '.join(EFFORTS[1:])}")
        _check_tool_choice(asked, f"{at}tool_choice")
        _check_response_format(asked.response_format, f"{at}response_format")
        if asked.HasField("wire_request"):
            check_wire_request(asked.wire_request, f"{at}wire_request")

    def public_field(self, field: str) -> str:
        inner = "task.generate."
        return f"task.{field.removeprefix(inner)}" if field.startswith(inner) else field

    def estimate(self, task: Task, count: TokenCounter | None = None) -> Estimate:
        return conversation_estimate(task.generate, count)

    def rows(self, task: Task) -> int:
        return 1

    def split(self, task: Task, max_rows: int) -> list[Task]:
        return [task]

    def merge(self, task: Task, parts: Sequence[TaskResult], into: TaskResult) -> None:
        raise internal("a generate task has no parts")

    def confidence(self, result: TaskResult) -> float | None:
        return None

    def unshareable_because(self, task: Task, max_temperature: float, *, asked_for: bool) -> str:
        asked = task.generate
        may_call = asked.tool_choice.mode != inference_pb2.TOOL_CHOICE_MODE_NONE
        if may_call and not all(tool.read_only for tool in asked.tools):
            return "tools with side effects"
        return _sampled(asked, max_temperature, asked_for=asked_for)

    def unstorable_because(
        self, task: Task, result: TaskResult, max_temperature: float, *, asked_for: bool
    ) -> str:
        asked, answer = task.generate, result.generate
        message = answer.message
        if why := UNFINISHED.get(answer.finish_reason):
            return why
        if answer.unconfirmed:
            return "end not confirmed"
        if message.refusal:
            return "refused"
        if not message.content.strip() and not message.tool_calls:
            return "empty"
        harmless = {tool.name for tool in asked.tools if tool.read_only}
        if any(call.name not in harmless for call in message.tool_calls):
            return "tool call with side effects"
        if not all(_is_json(call.arguments_json) for call in message.tool_calls):
            return "tool call without valid arguments"
        return _sampled(asked, max_temperature, asked_for=asked_for)

    def similar_part(self, task: Task) -> SimilarPart | None:
        """The last turn, where it is the user's."""
        messages = task.generate.messages
        if (
            not messages
            or messages[-1].role != inference_pb2.ROLE_USER
            or not messages[-1].content.strip()
            or messages[-1].parts
        ):
            return None
        rest = inference_pb2.GenerateTask()
        rest.CopyFrom(task.generate)
        del rest.messages[-1]
        settings = settings_of(rest.wire_request) if rest.HasField("wire_request") else b""
        rest.ClearField("wire_request")
        said = rest.SerializeToString(deterministic=True) + settings
        return SimilarPart(messages[-1].content, said)


def _sampled(asked: inference_pb2.GenerateTask, max_temperature: float, *, asked_for: bool) -> str:
    """Why another call may be given another answer; empty where reuse is asked for."""
    hot = asked.HasField("temperature") and asked.temperature > max_temperature
    return "temperature" if hot and not asked_for else ""


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _check_message(message: inference_pb2.Message, at: str) -> None:
    if message.role not in ROLE_NAMES:
        known = ", ".join(inference_pb2.Role.Name(role) for role in ROLES.values())
        raise invalid(f"{at}role", f"is missing or unknown; say one of {known}")
    is_result = message.role == inference_pb2.ROLE_TOOL
    # A model's turn may be empty or a refusal; conversations that hold such a turn go on.
    may_be_empty = is_result or message.role == inference_pb2.ROLE_ASSISTANT
    if not message.content and not message.parts and not may_be_empty:
        raise invalid(f"{at}content", "is empty")
    if message.content and message.parts:
        raise invalid(
            f"{at}parts", "must be empty where content is given; put the text into a part"
        )
    for index, part in enumerate(message.parts):
        _check_part(part, f"{at}parts[{index}]")
    if is_result and not message.tool_call_id:
        raise invalid(f"{at}tool_call_id", "is empty")


def _check_part(part: inference_pb2.ContentPart, at: str) -> None:
    kind = part.WhichOneof("part")
    if kind is None:
        raise invalid(at, "is empty; give text, an image or a file")
    if kind == "text":
        return
    source = getattr(part, kind)
    if source.WhichOneof("source") is None:
        raise invalid(f"{at}.{kind}", "has no source; give its url or its data")
    if source.url and not source.url.startswith(("https://", "http://")):
        raise invalid(f"{at}.{kind}.url", "must begin with http:// or https://")
    if source.data and not source.media_type:
        raise invalid(f"{at}.{kind}.media_type", "is empty; say what the data is, as image/png")


def _check_tool_choice(asked: inference_pb2.GenerateTask, at: str) -> None:
    known = {tool.name for tool in asked.tools}
    for index, name in enumerate(asked.tool_choice.functions):
        if name not in known:
            raise invalid(
                f"{at}.functions[{index}]", f"names {name!r}, which is not among the tools"
            )


def _check_response_format(asked: inference_pb2.ResponseFormat, at: str) -> None:
    wants_schema = asked.kind == inference_pb2.RESPONSE_FORMAT_KIND_JSON_SCHEMA
    if wants_schema and not asked.schema_json:
        raise invalid(f"{at}.schema_json", "is empty; give the schema or choose another kind")
    if asked.schema_json and not wants_schema:
        raise invalid(
            f"{at}.kind", "must be RESPONSE_FORMAT_KIND_JSON_SCHEMA where a schema is given"
        )
