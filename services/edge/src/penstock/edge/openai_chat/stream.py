"""An answer as chat completion chunks. Frames of text come from a template: clients get thousands.

Clients join strings over the chunks, so `role`, a call's `id` and `name` are sent once; the chunk
with the usage has no choices, and is the last before `[DONE]`.
"""

from __future__ import annotations

import orjson
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.json_fields import Json
from penstock.edge.openai_chat.answer import extra_of, finish_of, head_of, logprobs_of, usage_of
from penstock.edge.openai_chat.errors import error_object
from penstock.edge.wire import Failure, Identity

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
MARK = "\x00"
"""Stands where a template takes a value; no name of a model has it, since names are checked."""


class ChunkEvents:
    """The events of one answer. See `wire.Events`."""

    def __init__(self, identity: Identity, *, shows_usage: bool) -> None:
        self._head = {**head_of(identity), "object": "chat.completion.chunk"}
        self._shows_usage = shows_usage
        self._has_calls = self._has_refusal = False
        self._before, self._after = self._template()

    def _template(self) -> tuple[bytes, bytes]:
        """The bytes around the text of a chunk that only adds text."""
        framed = self._frame({"content": MARK})
        before, _, after = framed.partition(orjson.dumps(MARK))
        return before, after

    def _frame(self, delta: Json, finish: str | None = None, logprobs: Json | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._framed([choice])

    def _framed(self, choices: list[Json], usage: Json | None = None) -> bytes:
        chunk = {**self._head, "choices": choices}
        if self._shows_usage:
            chunk["usage"] = usage
        return b"data: " + orjson.dumps(chunk) + b"\n\n"

    def start(self) -> bytes:
        """See Events."""
        return self._frame({"role": "assistant", "content": "", "refusal": None})

    def piece(self, chunk: pb.GenerateChunk) -> bytes:
        """See Events."""
        if chunk.keep_alive:
            return KEEP_ALIVE
        frames = b""
        if chunk.reasoning:
            frames += self._reasoning(chunk)
        if chunk.delta and not chunk.logprobs:
            frames += self._before + orjson.dumps(chunk.delta) + self._after
        elif chunk.delta or chunk.logprobs:
            logprobs = logprobs_of(chunk.logprobs)
            frames += self._frame({"content": chunk.delta}, logprobs=logprobs)
        if chunk.refusal:
            self._has_refusal = True
            frames += self._frame({"refusal": chunk.refusal})
        if chunk.tool_calls:
            self._has_calls = True
            frames += self._frame({"tool_calls": [_call(call) for call in chunk.tool_calls]})
        if chunk.finish_reason:
            frames += self._finished(chunk)
        return frames

    def _reasoning(self, chunk: pb.GenerateChunk) -> bytes:
        text = "".join(block.text for block in chunk.reasoning)
        return self._frame({"reasoning_content": text}) if text else b""

    def _finished(self, chunk: pb.GenerateChunk) -> bytes:
        finish = finish_of(
            chunk.finish_reason, has_calls=self._has_calls, has_refusal=self._has_refusal
        )
        return self._frame(extra_of(chunk.extra_json), finish)

    def end(self, usage: common_pb2.Usage) -> bytes:
        """See Events."""
        return (self._framed([], usage_of(usage)) if self._shows_usage else b"") + DONE

    def failure(self, failure: Failure) -> bytes:
        """See Events: clients raise what has an `error`."""
        return b"data: " + orjson.dumps(error_object(failure)) + b"\n\n"

    def keep_alive(self) -> bytes:
        """See Events."""
        return KEEP_ALIVE


def _call(call: pb.ToolCallDelta) -> Json:
    function: Json = {"arguments": call.arguments_json}
    if call.name:
        function = {"name": call.name, **function}
    shown: Json = {"index": call.index, "function": function}
    if call.id:
        shown |= {"id": call.id, "type": "function"}
    return {**extra_of(call.extra_json), **shown}
