"""A message, whole or streamed. A whole message is read as blocks that begin and end at once, so
that there is one way through.

The stream: message_start, then of each block content_block_start, deltas and content_block_stop,
then message_delta and message_stop; `ping` anywhere; `error` ends it.

Pure but for the answer that grows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.answer import GrowingAnswer, cut
from penstock.inference_upstream.protocols.answer_events import KEEP_ALIVE, AnswerEvents, Chunks
from penstock.inference_upstream.protocols.anthropic_messages.blocks import Blocks
from penstock.inference_upstream.protocols.anthropic_messages.finish import ending_of
from penstock.inference_upstream.protocols.anthropic_messages.usage import reported_usage
from penstock.inference_upstream.protocols.event_stream import Event
from penstock.inference_upstream.protocols.faults import error_fault, malformed
from penstock.inference_upstream.protocols.json_values import (
    SHAPE_ERRORS,
    object_of,
    objects_of,
    parse_object,
    text_of,
)
from penstock.inference_upstream.protocols.repeated_events import RepeatedEvents
from penstock.inference_upstream.protocols.wire import Target

Json = dict[str, Any]
NAMES: Mapping[Any, bytes] = {
    kind: kind.encode()
    for kind in (
        "content_block_delta",
        "content_block_start",
        "content_block_stop",
        "message_start",
        "message_delta",
        "message_stop",
        "ping",
    )
}
"""The types of events, as the stream names them."""


class MessageAnswer:
    """A message as it grows."""

    def __init__(self, task: pb.GenerateTask, target: Target, answer: GrowingAnswer) -> None:
        self._task = task
        self._target = target
        self._answer = answer
        self.blocks = Blocks(self._answer)
        self.has_begun = False
        self._usage: Json = {}
        self._model = ""
        self._ended: Json = {}

    def begin(self, message: Json) -> Chunks:
        """The message's head; its blocks too, where it is whole."""
        self.has_begun = True
        self._model = text_of(message.get("model")) or self._model
        self._add_usage(message.get("usage"))
        chunks: Chunks = []
        for index, block in enumerate(objects_of(message.get("content"))):
            chunks += self.blocks.start(index, block)
            chunks += self.blocks.stop(index)
        return chunks

    def finish(self, ended: Json, usage: Any) -> None:
        """Why the message ended, and its tokens."""
        if ended.get("stop_reason") is not None:
            self._ended = ended
        self._add_usage(usage)

    def _add_usage(self, usage: Any) -> None:
        told = object_of(usage)
        self._usage |= {name: value for name, value in told.items() if value is not None}

    def end(self, *, is_confirmed: bool) -> tuple[Chunks, pb.TaskResult]:
        """The last chunk, and the result.

        Raises:
            Fault: the message has no end that is known.
        """
        if not self._ended:
            raise cut()
        details = object_of(self._ended.get("stop_details"))
        explanation = text_of(details.get("explanation"))
        chunks = [self._answer.add_refusal(explanation)] if explanation else []
        ending = ending_of(self._ended, self._answer, self._target.switches)
        ending.is_confirmed = is_confirmed and self.blocks.are_closed(ending.finish_reason)
        chunks.append(self._answer.last_chunk(ending))
        result = self._answer.result(ending, self._model)
        usage = reported_usage(self._usage) or self._answer.estimated_usage(self._task)
        result.usage.CopyFrom(usage)
        return chunks, result


class MessageStream(AnswerEvents):
    """A streamed message. See AnswerStream."""

    def __init__(self, task: pb.GenerateTask, target: Target) -> None:
        answer = GrowingAnswer()
        super().__init__(answer, RepeatedEvents("text", _delta_of))
        self._needs_end = target.switches.confirms_end
        self._message = MessageAnswer(task, target, answer)
        self._is_irregular = False
        handlers = (
            self._delta,
            self._block_start,
            self._block_stop,
            self._start,
            self._message_delta,
            self._stop,
            self._ping,
        )
        self._handlers: Mapping[str, Callable[[Json], Chunks]] = dict(
            zip(NAMES, handlers, strict=True)
        )

    def _take(self, event: Event) -> Chunks:
        if self.is_done:
            return []
        self._repeated.forget()
        text, name = event
        if text == b"[DONE]":  # servers that speak both protocols
            return []
        data = parse_object(text, self._halves)
        kind = data.get("type")
        handler = self._handlers.get(kind) if type(kind) is str else None
        if handler is None or (name and name != NAMES[kind]):
            _check_for_error(data, name)
            # Unknown types are to be skipped; it may as well be a known one that was damaged.
            self._is_irregular = True
            if handler is None:
                return []
        try:
            chunks = handler(data)
        except SHAPE_ERRORS:
            raise malformed(f"an event {kind} has another shape") from None
        if handler == self._delta and name in (b"", NAMES[kind]) and self._adds_text(data):
            self._repeated.learn(event, data)
        return chunks

    def _adds_text(self, data: Json) -> bool:
        return self._message.blocks.adds_text(data["index"], data["delta"])

    def _start(self, data: Json) -> Chunks:
        if self._message.has_begun:
            self._is_irregular = True
            return []
        return self._message.begin(data["message"])

    def _block_start(self, data: Json) -> Chunks:
        if not self._message.has_begun:
            raise malformed("a block comes before the message")
        return self._message.blocks.start(_index(data), object_of(data["content_block"]))

    def _delta(self, data: Json) -> Chunks:
        return self._message.blocks.add(data["index"], data["delta"])

    def _block_stop(self, data: Json) -> Chunks:
        return self._message.blocks.stop(_index(data))

    def _message_delta(self, data: Json) -> Chunks:
        self._message.finish(object_of(data["delta"]), data.get("usage"))
        return []

    def _stop(self, data: Json) -> Chunks:
        self.is_done = True
        return []

    def _ping(self, data: Json) -> Chunks:
        return [KEEP_ALIVE]

    def end(self) -> tuple[Chunks, pb.TaskResult]:
        """See AnswerStream."""
        chunks: Chunks = []
        for event in self._events.end():
            chunks += self._take(event)
        if not self.is_done and self._needs_end:
            raise cut()
        is_regular = not (self._is_irregular or self._events.is_irregular)
        try:
            last_chunks, result = self._message.end(is_confirmed=self.is_done and is_regular)
        except SHAPE_ERRORS:
            raise malformed("its end has another shape") from None
        return chunks + last_chunks, result


def _check_for_error(data: Json, name: bytes) -> None:
    if data.get("type") == "error" or name == b"error" or "error" in data:
        raise error_fault(data)


def _delta_of(event: Json) -> Json:
    delta: Json = event["delta"]
    return delta


def _index(data: Json) -> int:
    index: Any = data["index"]
    if type(index) is not int:
        raise TypeError("an index is a whole number")
    return index


def parse_message(body: bytes, task: pb.GenerateTask, target: Target) -> pb.TaskResult:
    """The result of a whole message.

    Raises:
        Fault: the provider reports an error, or the body is no message.
    """
    data = parse_object(body)
    if data.get("type") == "error" or data.get("error"):
        raise error_fault(data)
    if not isinstance(data.get("content"), list) or data.get("stop_reason") is None:
        raise malformed("it is not a message that has ended")
    message = MessageAnswer(task, target, GrowingAnswer())
    try:
        message.begin(data)
        message.finish(data, None)
        _, result = message.end(is_confirmed=True)
    except SHAPE_ERRORS:
        raise malformed("it is not a message") from None
    return result
