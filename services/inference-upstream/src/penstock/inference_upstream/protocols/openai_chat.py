"""OpenAI's wire format of chat completions.

Pure: bytes and messages in, values out. Requests are made from tasks, results are parsed from whole
answers or from streams. What an upstream sends is not trusted: an answer of another shape becomes
UNAVAILABLE, since another upstream may do better.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.faults import malformed
from penstock.rpc.errors import invalid, unavailable
from penstock.rpc.reasons import Reason
from penstock.service.purity import pure
from penstock.tasks.roles import ROLE_NAMES

FINISH_REASONS = {
    "stop": pb.FINISH_REASON_STOP,
    "length": pb.FINISH_REASON_LENGTH,
    "tool_calls": pb.FINISH_REASON_TOOL_CALLS,
    "function_call": pb.FINISH_REASON_TOOL_CALLS,
    "content_filter": pb.FINISH_REASON_FILTERED,
}
TOOL_CHOICES = {
    pb.TOOL_CHOICE_MODE_UNSPECIFIED: "auto",
    pb.TOOL_CHOICE_MODE_AUTO: "auto",
    pb.TOOL_CHOICE_MODE_NONE: "none",
    pb.TOOL_CHOICE_MODE_REQUIRED: "required",
}
"""How the wire names a tool choice."""
BYTES_PER_TOKEN = 4
"""For estimates where an upstream reports no tokens."""
SHAPE_ERRORS = (KeyError, IndexError, TypeError, AttributeError, ValueError)
"""What reading a JSON value raises that does not have the expected shape."""
END_OF_STREAM = "[DONE]"


def chat_request(
    task: pb.GenerateTask, model: str, *, stream: bool, resumes: bool = False
) -> dict[str, Any]:
    """The body of `POST /chat/completions`.

    Args:
        model: the model's name at the upstream.
        resumes: whether the server can continue an assistant's turn that ends the conversation; the
            request then says so.

    Raises:
        Fault: INVALID_ARGUMENT naming a field that should be JSON and is not.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in task.messages],
        "stream": stream,
    }
    if resumes and task.messages and task.messages[-1].role == pb.ROLE_ASSISTANT:
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if stream:
        body["stream_options"] = {"include_usage": True}
    if task.tools:
        body["tools"] = [_tool(tool) for tool in task.tools]
        if task.HasField("tool_choice"):
            body["tool_choice"] = _tool_choice(task.tool_choice)
    if task.response_format.schema_json:
        body["response_format"] = _response_format(task.response_format)
    if task.max_tokens:
        body["max_completion_tokens"] = task.max_tokens
    for name in ("temperature", "top_p", "seed"):
        if task.HasField(name):
            body[name] = getattr(task, name)
    if task.stop:
        body["stop"] = list(task.stop)
    return body


def _message(message: pb.Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": ROLE_NAMES[message.role], "content": message.content}
    if message.tool_calls:
        turn["content"] = message.content or None
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments_json},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    return turn


def _tool(tool: pb.Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description}
    if tool.parameters_json:
        name = f"task.tools[{tool.name}].parameters_json"
        function["parameters"] = _parse_json_field(name, tool.parameters_json)
    return {"type": "function", "function": function}


def _tool_choice(choice: pb.ToolChoice) -> object:
    if len(choice.functions) == 1:
        return {"type": "function", "function": {"name": choice.functions[0]}}
    return TOOL_CHOICES[choice.mode]


def _response_format(asked: pb.ResponseFormat) -> dict[str, Any]:
    schema = _parse_json_field("task.response_format.schema_json", asked.schema_json)
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }


def _parse_json_field(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise invalid(name, "is not JSON") from None


def parse_chat(body: bytes, task: pb.GenerateTask) -> pb.TaskResult:
    """The result of a whole chat completion.

    Raises:
        Fault: UNAVAILABLE where the body is not a chat completion.
    """
    data = parse_object(body)
    try:
        return _chat_result(data, task)
    except SHAPE_ERRORS:
        raise malformed("the answer is not a chat completion") from None


def _chat_result(data: dict[str, Any], task: pb.GenerateTask) -> pb.TaskResult:
    choice = data["choices"][0]
    answer = choice["message"]
    finish_reason = choice["finish_reason"]
    result = pb.TaskResult(revision=str(data.get("model", "")))
    message = result.generate.message
    message.role = pb.ROLE_ASSISTANT
    message.content = str(answer.get("content") or "")
    for call in answer.get("tool_calls") or ():
        function = call.get("function") or {}
        message.tool_calls.add(
            id=str(call.get("id", "")),
            name=str(function.get("name", "")),
            arguments_json=str(function.get("arguments") or "{}"),
        )
    result.generate.finish_reason = FINISH_REASONS.get(finish_reason, pb.FINISH_REASON_STOP)
    result.usage.CopyFrom(parse_usage(data.get("usage"), task, message.content))
    return result


@pure
def parse_usage(usage: Any, task: pb.GenerateTask, answer: str) -> common_pb2.Usage:
    """Tokens by price tier as the upstream reports them in `usage`.

    Where the report is missing or makes no sense, tokens are estimated from the length of the
    conversation and the answer, and marked as estimated.
    """
    with contextlib.suppress(*SHAPE_ERRORS):
        return _reported_usage(usage)
    size = sum(len(message.content) for message in task.messages)
    return common_pb2.Usage(
        input_tokens=max(1, size // BYTES_PER_TOKEN),
        output_tokens=len(answer) // BYTES_PER_TOKEN,
        estimated=True,
    )


def _reported_usage(usage: Any) -> common_pb2.Usage:
    """Raises one of SHAPE_ERRORS where the report is missing or makes no sense."""
    prompt_details = usage.get("prompt_tokens_details") or {}
    completion_details = usage.get("completion_tokens_details") or {}
    tokens = common_pb2.Usage()
    tokens.input_tokens = _count(int(usage["prompt_tokens"]))
    tokens.output_tokens = _count(usage.get("completion_tokens"))
    tokens.cached_input_tokens = _count(prompt_details.get("cached_tokens"))
    tokens.written_input_tokens = _count(prompt_details.get("cache_write_tokens"))
    tokens.reasoning_tokens = _count(completion_details.get("reasoning_tokens"))
    return tokens


def _count(value: Any) -> int:
    """A number of tokens; 0 for none."""
    count = int(value or 0)
    if count < 0:
        raise ValueError("a number of tokens is negative")
    return count


@dataclass
class _StreamedToolCall:
    """A tool call whose parts arrive in several events."""

    id: str = ""
    name: str = ""
    arguments_json: str = ""


@dataclass
class ChatStream:
    """A chat completion that arrives as server-sent events (WHATWG HTML, section 9.2).

    Feed it each line; ask for the result at the end.
    """

    task: pb.GenerateTask
    texts: list[str] = field(default_factory=list)
    tool_calls: dict[int, _StreamedToolCall] = field(default_factory=dict)
    finish_reason: str = ""
    usage: Any = None
    model: str = ""
    is_done: bool = False
    """True once the upstream has marked the end of the stream."""

    def feed_line(self, line: str) -> str:
        """Take a line; returns the text that it adds to the answer.

        Raises:
            Fault: UNAVAILABLE where the line is an error of the upstream, or not the protocol.
        """
        if not line.startswith("data:"):
            return ""
        data = line[5:].strip()
        if data == END_OF_STREAM:
            self.is_done = True
            return ""
        event = parse_object(data.encode())
        if "error" in event:
            raise unavailable(
                "the upstream ended its stream with an error", reason=Reason.UPSTREAM_ERROR
            )
        self.model = str(event.get("model") or self.model)
        self.usage = event.get("usage") or self.usage
        choices = event.get("choices") or ()
        try:
            return self._add_choice(choices[0]) if choices else ""
        except SHAPE_ERRORS:
            raise malformed("an event is not a chat chunk") from None

    def _add_choice(self, choice: Any) -> str:
        delta = choice.get("delta") or {}
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        for part in delta.get("tool_calls") or ():
            self._add_tool_call(part)
        text = str(delta.get("content") or "")
        if text:
            self.texts.append(text)
        return text

    def _add_tool_call(self, part: Any) -> None:
        call = self.tool_calls.setdefault(int(part.get("index", 0)), _StreamedToolCall())
        function = part.get("function") or {}
        call.id += part.get("id") or ""
        call.name += function.get("name") or ""
        call.arguments_json += function.get("arguments") or ""

    def result(self) -> tuple[pb.TaskResult, pb.GenerateChunk]:
        """The whole result, and the chunk that ends the stream.

        Raises:
            Fault: UNAVAILABLE for a stream without a finish reason: it was cut, and is never passed
                on as complete.
        """
        if not self.finish_reason:
            raise unavailable(
                "the upstream's stream was cut before its end", reason=Reason.STREAM_CUT
            )
        answer = "".join(self.texts)
        result = pb.TaskResult(revision=self.model)
        message = result.generate.message
        message.role = pb.ROLE_ASSISTANT
        message.content = answer
        for _, call in sorted(self.tool_calls.items()):
            message.tool_calls.add(
                id=call.id, name=call.name, arguments_json=call.arguments_json or "{}"
            )
        finish_reason = FINISH_REASONS.get(self.finish_reason, pb.FINISH_REASON_STOP)
        result.generate.finish_reason = finish_reason
        result.usage.CopyFrom(parse_usage(self.usage, self.task, answer))
        last_chunk = pb.GenerateChunk(finish_reason=finish_reason)
        for index, each in enumerate(message.tool_calls):
            last_chunk.tool_calls.add(
                index=index, id=each.id, name=each.name, arguments_json=each.arguments_json
            )
        return result, last_chunk


def parse_object(body: bytes) -> dict[str, Any]:
    """A body that is a JSON object.

    Raises:
        Fault: UNAVAILABLE where it is not.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise malformed("it is not JSON") from None
    if not isinstance(data, dict):
        raise malformed("it is not a JSON object")
    return data
