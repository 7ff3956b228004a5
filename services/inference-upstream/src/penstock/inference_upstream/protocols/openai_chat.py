"""OpenAI's chat and embedding protocol, both ways, and what each fault of an upstream means.

Plain: bytes and messages in, values out.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.rpc.errors import Fault, exhausted, failed_precondition, invalid, unavailable
from penstock.rpc.reasons import Reason

REASONS = {
    "stop": pb.FINISH_REASON_STOP,
    "length": pb.FINISH_REASON_LENGTH,
    "tool_calls": pb.FINISH_REASON_TOOL_CALLS,
    "function_call": pb.FINISH_REASON_TOOL_CALLS,
    "content_filter": pb.FINISH_REASON_FILTERED,
}
BYTES_A_TOKEN = 4
OVERLOADED = 529
LONGEST_RETRY_S = 300.0
ODD = (KeyError, IndexError, TypeError, AttributeError, ValueError)
"""What reading a JSON value raises that is not of the shape it should be."""
DONE = "[DONE]"


def chat_body(
    task: pb.GenerateTask, model: str, *, stream: bool, resumes: bool = False
) -> dict[str, Any]:
    """The request of `POST /chat/completions`; a server that `resumes` is asked to continue an
    assistant's turn that ends it.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in task.messages],
        "stream": stream,
    }
    if resumes and task.messages and task.messages[-1].role == "assistant":
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if stream:
        body["stream_options"] = {"include_usage": True}
    if task.tools:
        body["tools"] = [_tool(tool) for tool in task.tools]
        if task.tool_choice:
            named = {"type": "function", "function": {"name": task.tool_choice}}
            body["tool_choice"] = (
                task.tool_choice if task.tool_choice in ("auto", "none", "required") else named
            )
    if task.response_schema_json:
        schema = _parsed("task.response_schema_json", task.response_schema_json)
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        }
    if task.max_tokens:
        body["max_completion_tokens"] = task.max_tokens
    for name in ("temperature", "top_p", "seed"):
        if task.HasField(name):
            body[name] = getattr(task, name)
    if task.stop:
        body["stop"] = list(task.stop)
    return body


def embed_body(task: pb.EmbedTask, model: str) -> dict[str, Any]:
    """The request of `POST /embeddings`."""
    return {"model": model, "input": list(task.texts), "encoding_format": "float"}


def _message(message: pb.Message) -> dict[str, Any]:
    said: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        said["content"] = message.content or None
        said["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments_json},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        said["tool_call_id"] = message.tool_call_id
    return said


def _tool(tool: pb.Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description}
    if tool.parameters_json:
        function["parameters"] = _parsed(
            f"task.tools[{tool.name}].parameters_json", tool.parameters_json
        )
    return {"type": "function", "function": function}


def _parsed(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise invalid(name, "is not JSON") from None


def answer(body: bytes, sent: pb.GenerateTask) -> pb.TaskResult:
    """A whole chat answer.

    Raises:
        Fault: UNAVAILABLE where it is not what the protocol says; another upstream may do better.
    """
    data = _object(body)
    try:
        return _answer(data, sent)
    except ODD:
        raise malformed("the answer is not a chat completion") from None


def _answer(data: dict[str, Any], sent: pb.GenerateTask) -> pb.TaskResult:
    choice = data["choices"][0]
    said, reason = choice["message"], choice["finish_reason"]
    result = pb.TaskResult(revision=str(data.get("model", "")))
    message = result.generate.message
    message.role, message.content = "assistant", str(said.get("content") or "")
    for call in said.get("tool_calls") or ():
        function = call.get("function") or {}
        message.tool_calls.add(
            id=str(call.get("id", "")),
            name=str(function.get("name", "")),
            arguments_json=str(function.get("arguments") or "{}"),
        )
    result.generate.finish_reason = REASONS.get(reason, pb.FINISH_REASON_STOP)
    result.usage.CopyFrom(usage(data.get("usage"), sent, message.content))
    return result


def embeddings(body: bytes, sent: pb.EmbedTask) -> pb.TaskResult:
    """A whole answer of vectors, in the order of the texts; raises UNAVAILABLE where it is not what
    the protocol says.
    """
    data = _object(body)
    try:
        rows = sorted(data["data"], key=lambda row: int(row["index"]))
        vectors = [[float(value) for value in row["embedding"]] for row in rows]
    except (KeyError, TypeError, ValueError):
        raise malformed("the answer has no vectors") from None
    if len(vectors) != len(sent.texts):
        raise malformed(f"{len(vectors)} vectors came for {len(sent.texts)} texts")
    result = pb.TaskResult(revision=str(data.get("model", "")))
    for vector in vectors:
        result.embed.embeddings.add(values=vector)
    told = (data.get("usage") or {}).get("prompt_tokens")
    result.usage.input_tokens = (
        told if isinstance(told, int) else sum(len(text) for text in sent.texts) // BYTES_A_TOKEN
    )
    result.usage.estimated = not isinstance(told, int)
    return result


def usage(told: Any, sent: pb.GenerateTask, said: str) -> common_pb2.Usage:
    """Tokens by tier as reported; estimated at four bytes each, and marked so, where the upstream
    does not say.
    """
    with contextlib.suppress(*ODD):
        return _told(told)
    size = sum(len(message.content) for message in sent.messages)
    return common_pb2.Usage(
        input_tokens=max(1, size // BYTES_A_TOKEN),
        output_tokens=len(said) // BYTES_A_TOKEN,
        estimated=True,
    )


def _told(told: Any) -> common_pb2.Usage:
    """Raises one of ODD where the report is not there or makes no sense."""
    read, wrote = (
        told.get("prompt_tokens_details") or {},
        told.get("completion_tokens_details") or {},
    )
    counts = {
        "input_tokens": int(told["prompt_tokens"]),
        "output_tokens": int(told.get("completion_tokens") or 0),
        "cached_input_tokens": int(read.get("cached_tokens") or 0),
        "written_input_tokens": int(read.get("cache_write_tokens") or 0),
        "reasoning_tokens": int(wrote.get("reasoning_tokens") or 0),
    }
    if min(counts.values()) < 0:
        raise ValueError
    return common_pb2.Usage(**counts)  # type: ignore[arg-type]


@dataclass
class Streamed:
    """A chat answer that arrives as server-sent events (WHATWG HTML, section 9.2).

    Feed lines; ask for the result at the end.
    """

    sent: pb.GenerateTask
    text: list[str] = field(default_factory=list)
    calls: dict[int, list[str]] = field(default_factory=dict)
    reason: str = ""
    told: Any = None
    model: str = ""
    done: bool = False

    def line(self, line: str) -> str:
        """Take a line; returns the text that it adds.

        Raises UNAVAILABLE for what is not the protocol.
        """
        if not line.startswith("data:"):
            return ""
        data = line[5:].strip()
        if data == DONE:
            self.done = True
            return ""
        event = _object(data.encode())
        if "error" in event:
            raise unavailable(
                "the upstream broke off with an error of its own", reason=Reason.UPSTREAM_ERROR
            )
        self.model = str(event.get("model") or self.model)
        self.told = event.get("usage") or self.told
        choices = event.get("choices") or ()
        try:
            return self._choice(choices[0]) if choices else ""
        except ODD:
            raise malformed("an event is not a chat chunk") from None

    def _choice(self, choice: Any) -> str:
        delta = choice.get("delta") or {}
        self.reason = choice.get("finish_reason") or self.reason
        for call in delta.get("tool_calls") or ():
            parts = self.calls.setdefault(int(call.get("index", 0)), ["", "", ""])
            function = call.get("function") or {}
            parts[0] += call.get("id") or ""
            parts[1] += function.get("name") or ""
            parts[2] += function.get("arguments") or ""
        added = str(delta.get("content") or "")
        if added:
            self.text.append(added)
        return added

    def result(self) -> tuple[pb.TaskResult, pb.GenerateChunk]:
        """The whole answer and the chunk that ends it.

        Raises UNAVAILABLE for a stream that was cut: it is never passed on as complete.
        """
        if not self.reason:
            raise unavailable(
                "the upstream's stream was cut before its end", reason=Reason.STREAM_CUT
            )
        result = pb.TaskResult(revision=self.model)
        message, said = result.generate.message, "".join(self.text)
        message.role, message.content = "assistant", said
        for _, (name_id, name, arguments) in sorted(self.calls.items()):
            message.tool_calls.add(id=name_id, name=name, arguments_json=arguments or "{}")
        result.generate.finish_reason = REASONS.get(self.reason, pb.FINISH_REASON_STOP)
        result.usage.CopyFrom(usage(self.told, self.sent, said))
        chunk = pb.GenerateChunk(
            tool_calls=message.tool_calls, finish_reason=result.generate.finish_reason
        )
        return result, chunk


def refusal(status: int, headers: Mapping[str, str], now_unix_s: float) -> Fault:
    """What an HTTP status means.

    Retried elsewhere: 408, 409, 429, 5xx. The caller's or the operator's to mend: the rest.
    """
    wait_s = retry_after_s(headers.get("retry-after", ""), now_unix_s)
    if status == 429:
        return exhausted(
            "the upstream limits its rate",
            reason=Reason.UPSTREAM_RATE_LIMITED,
            retry_after_s=wait_s or 1.0,
        )
    if status in (408, 409, OVERLOADED) or status >= 500:
        return unavailable(
            f"the upstream answered {status}",
            retry_after_s=wait_s or 0.5,
            reason=Reason.UPSTREAM_OVERLOADED,
        )
    if status in (401, 403):
        return failed_precondition(
            "",
            "the upstream refuses the key that is configured for it",
            Reason.UPSTREAM_CREDENTIALS,
        )
    if status == 404:
        return failed_precondition(
            "model", "the upstream does not know this model", Reason.UPSTREAM_NO_MODEL
        )
    if status == 413:
        return invalid("task.messages", "are too long for the upstream", Reason.UPSTREAM_TOO_LONG)
    return invalid("task", f"the upstream refuses the request ({status})", Reason.UPSTREAM_REFUSED)


def retry_after_s(value: str, now_unix_s: float) -> float:
    """Seconds of a `retry-after` header, as a number or as a date (RFC 9110, 10.2.3); 0 for none or
    nonsense, at most five minutes.
    """
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now_unix_s
        except (TypeError, ValueError):
            return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_S) if math.isfinite(seconds) else 0.0


def malformed(what: str) -> Fault:
    """The upstream does not speak the protocol."""
    return unavailable(
        f"the upstream's answer is malformed: {what}", reason=Reason.UPSTREAM_MALFORMED
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise malformed("it is not JSON") from None
    if not isinstance(data, dict):
        raise malformed("it is not a JSON object")
    return data
