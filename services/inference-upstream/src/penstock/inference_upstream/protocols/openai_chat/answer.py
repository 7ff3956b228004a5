"""A chat completion, whole or streamed. A whole message is read as one large delta, so that there
is one way through.

Pure but for the answer that grows. What an upstream sends is not trusted: an answer of another
shape is UPSTREAM_MALFORMED, since another upstream may do better.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.answer import GrowingAnswer, cut
from penstock.inference_upstream.protocols.answer_events import AnswerEvents, Chunks
from penstock.inference_upstream.protocols.event_stream import Event
from penstock.inference_upstream.protocols.faults import error_fault, malformed
from penstock.inference_upstream.protocols.json_values import (
    SHAPE_ERRORS,
    dumped,
    object_of,
    objects_of,
    parse_object,
    text_of,
)
from penstock.inference_upstream.protocols.openai_chat.finish import ending_of
from penstock.inference_upstream.protocols.openai_chat.logprobs import token_logprobs
from penstock.inference_upstream.protocols.openai_chat.reasoning_details import merged_details
from penstock.inference_upstream.protocols.openai_chat.tool_calls import ToolCallPieces
from penstock.inference_upstream.protocols.openai_chat.turns import DETAILS
from penstock.inference_upstream.protocols.openai_chat.usage import reported_usage
from penstock.inference_upstream.protocols.repeated_events import RepeatedEvents
from penstock.inference_upstream.protocols.wire import Target

END_OF_STREAM = b"[DONE]"
REASONING_TEXTS: Mapping[str, str] = {
    "reasoning_content": "openai.reasoning_content",  # DeepSeek, Qwen, Moonshot, vLLM, xAI
    "reasoning": "openai.reasoning",  # OpenRouter, Groq, Ollama, newer vLLM
}
"""Fields with reasoning that may be read, and the formats of their blocks."""
TEXT_ALONE = frozenset({"role", "content"})
"""The fields of a delta that only adds text, as nearly all of a stream do: nothing else is looked
for in it.
"""
TELLING = ("index", "error", "finish_reason", "stop_reason", "usage", "logprobs")
"""Fields of a choice that tell more than its delta, or that it is not the first."""
EXTRA_CONTENT = "extra_content"
"""Google's field for what it must see again."""


class ChatAnswer:
    """A chat completion as it grows."""

    def __init__(self, task: pb.GenerateTask, target: Target, answer: GrowingAnswer) -> None:
        self._task = task
        self._target = target
        self._answer = answer
        self._pieces = ToolCallPieces(self._answer, len(task.messages))
        self._reasoning_block = -1
        self._details: list[dict[str, Any]] = []
        self._finish_reason: Any = None
        self._stop: Any = None
        self._usage: Any = None
        self._model = ""

    def add(self, data: dict[str, Any], field: str, *, is_whole: bool = False) -> Chunks:
        """Take a body or an event; `field` is where its choice has the message or the delta.

        Raises:
            Fault: the provider reports an error, or the shape is another.
        """
        if data.get("error"):
            raise error_fault(data["error"])
        if data.get("object") == "error":
            raise error_fault(data)
        try:
            self._model = text_of(data.get("model")) or self._model
            self._usage = data.get("usage") or self._usage
            # Further choices are not asked for; where a server sends some, the first is ours.
            for choice in objects_of(data.get("choices")):
                if not choice.get("index"):
                    return list(self._add_choice(choice, field, is_whole))
        except SHAPE_ERRORS:
            raise malformed("it is not a chat completion") from None
        return []

    def _add_choice(
        self, choice: dict[str, Any], field: str, is_whole: bool
    ) -> Iterator[pb.GenerateChunk]:
        if choice.get("error"):
            raise error_fault(choice["error"])
        delta = object_of(choice.get(field))
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        self._stop = choice.get("stop_reason") or self._stop
        self._usage = choice.get("usage") or self._usage  # Moonshot
        if delta.keys() <= TEXT_ALONE:
            yield from self._add_content(delta.get("content"))
        else:
            yield from self._add_delta(delta, is_whole)
        logprobs = choice.get("logprobs")
        if logprobs and (tokens := token_logprobs(object_of(logprobs))):
            yield self._answer.add_logprobs(tokens)

    def _add_delta(self, delta: dict[str, Any], is_whole: bool) -> Iterator[pb.GenerateChunk]:
        yield from self._add_reasoning(delta)
        yield from self._add_content(delta.get("content"))
        if refusal := text_of(delta.get("refusal")):
            yield self._answer.add_refusal(refusal)
        yield from self._add_tool_calls(delta, is_whole)
        if delta.get(EXTRA_CONTENT):
            self._answer.extra[EXTRA_CONTENT] = object_of(delta[EXTRA_CONTENT])

    def _add_content(self, content: Any) -> Iterable[pb.GenerateChunk]:
        if type(content) is str:
            return (self._answer.add_text(content),) if content else ()
        return self._add_parts(objects_of(content))

    def _add_tool_calls(self, delta: dict[str, Any], is_whole: bool) -> Iterator[pb.GenerateChunk]:
        pieces = objects_of(delta.get("tool_calls"))
        if function := object_of(delta.get("function_call")):  # before there were tools
            pieces = [*pieces, {"index": 0, "function": function}]
        for piece in pieces:
            chunk = self._pieces.add(piece, is_whole=is_whole)
            if chunk is not None:
                yield chunk

    def _add_parts(self, parts: Sequence[dict[str, Any]]) -> Iterator[pb.GenerateChunk]:
        """Content as parts, as Mistral's reasoning models have it."""
        for part in parts:
            if part.get("type") == "thinking":
                thought = "".join(
                    text_of(each.get("text")) for each in objects_of(part["thinking"])
                )
                yield self._add_reasoning_text("openai.thinking", thought)
            elif text := text_of(part.get("text")):
                yield self._answer.add_text(text)

    def _add_reasoning(self, delta: dict[str, Any]) -> Iterator[pb.GenerateChunk]:
        details = delta.get("reasoning_details")
        if details:
            self._details += objects_of(details)
        for field, kind in REASONING_TEXTS.items():
            if text := text_of(delta.get(field)):
                # Where both fields are there, they say the same.
                yield self._add_reasoning_text(DETAILS if self._details else kind, text)
                return

    def _add_reasoning_text(self, kind: str, text: str) -> pb.GenerateChunk:
        """More reasoning: of the open block, or of a new one after something else was said."""
        blocks = self._answer.reasoning
        is_open = bool(blocks) and (
            bool(self._details) or blocks[-1].position == self._answer.position()
        )
        block = len(blocks) - 1 if is_open else len(blocks)
        return self._answer.add_reasoning(block, kind, text)

    def end(self, *, is_confirmed: bool) -> tuple[Chunks, pb.TaskResult]:
        """The last chunks, and the result.

        Raises:
            Fault: the answer has no end that is known, or has nothing where its end says that it
                asks for tools.
        """
        if self._finish_reason is None:
            raise cut()
        chunks: Chunks = []
        if self._details:
            # Whole only now: the provider refuses to see pieces again.
            state = dumped(merged_details(self._details)).encode()
            blocks = self._answer.reasoning
            has_block = bool(blocks) and blocks[-1].format == DETAILS
            block = len(blocks) - has_block
            chunks.append(self._answer.add_reasoning(block, DETAILS, state=state))
        if any(not call.name for call in self._answer.tool_calls):
            raise malformed("a tool call has no name")
        ending = ending_of(self._finish_reason, self._stop, self._answer, self._target.switches)
        ending.is_confirmed = is_confirmed
        chunks.append(self._answer.last_chunk(ending))
        result = self._answer.result(ending, self._model)
        result.usage.CopyFrom(self._tokens())
        return chunks, result

    def _tokens(self) -> common_pb2.Usage:
        return reported_usage(self._usage) or self._answer.estimated_usage(self._task)


class ChatStream(AnswerEvents):
    """A streamed chat completion. See AnswerStream."""

    def __init__(self, task: pb.GenerateTask, target: Target) -> None:
        answer = GrowingAnswer()
        super().__init__(answer, RepeatedEvents("content", _first_delta))
        self._needs_end = target.switches.confirms_end
        self._chat = ChatAnswer(task, target, answer)

    def _take(self, event: Event) -> Chunks:
        if self.is_done:
            return []
        data, name = event
        if data == END_OF_STREAM:
            self.is_done = True
            return []
        value = parse_object(data, self._halves)
        if name == b"error":
            raise error_fault(value)
        chunks = self._chat.add(value, "delta")
        if adds_text_alone(value):
            self._repeated.learn(event, value)
        else:
            self._repeated.forget()
        return chunks

    def end(self) -> tuple[Chunks, pb.TaskResult]:
        """See AnswerStream."""
        chunks: Chunks = []
        for event in self._events.end():
            chunks += self._take(event)
        if not self.is_done and self._needs_end:
            raise cut()
        is_confirmed = self.is_done and not self._events.is_irregular
        last_chunks, result = self._chat.end(is_confirmed=is_confirmed)
        return chunks + last_chunks, result


def _first_delta(event: dict[str, Any]) -> dict[str, Any]:
    delta: dict[str, Any] = event["choices"][0]["delta"]
    return delta


def adds_text_alone(event: dict[str, Any]) -> bool:
    """Whether an event, of the shape of a chat completion, adds text to the answer and tells
    nothing else but its model.
    """
    if event.get("error") or event.get("object") == "error" or event.get("usage"):
        return False
    choices: Sequence[dict[str, Any]] = event.get("choices") or ()
    if len(choices) != 1 or any(choices[0].get(name) for name in TELLING):
        return False
    delta = choices[0].get("delta") or {}
    is_alone = all(value is None or name in TEXT_ALONE for name, value in delta.items())
    return is_alone and type(delta.get("content")) is str


def parse_chat(body: bytes, task: pb.GenerateTask, target: Target) -> pb.TaskResult:
    """The result of a whole chat completion.

    Raises:
        Fault: the provider reports an error, or the body is no chat completion.
    """
    data = parse_object(body)
    chat = ChatAnswer(task, target, GrowingAnswer())
    chat.add(data, "message", is_whole=True)
    if not _is_whole(data):
        raise malformed("it has no message, or none that has ended")
    _, result = chat.end(is_confirmed=True)
    return result


def _is_whole(data: dict[str, Any]) -> bool:
    """Whether the first choice has a message and a reason why it ended."""
    first: dict[str, Any] = next(iter(data.get("choices") or ()), {})
    return first.get("message") is not None and first.get("finish_reason") is not None
