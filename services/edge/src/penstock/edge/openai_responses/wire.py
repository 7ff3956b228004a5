"""OpenAI's Responses as a wire of the edge: `POST /v1/responses`.

Before `read` stands `needs`: what a request refers to is fetched from the store in between. After
the answer, `kept` says what the store takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.answer_blocks.blocks import Block
from penstock.edge.answer_blocks.sequence import blocks_of
from penstock.edge.json_fields import Json, boolean, parse_body, text
from penstock.edge.openai_chat.errors import error_object, status_of
from penstock.edge.openai_responses.keeping import KeptResponse, kept_response
from penstock.edge.openai_responses.request import (
    Context,
    References,
    ignored_fields,
    input_of,
    metadata_of,
    references,
    task_of,
)
from penstock.edge.openai_responses.response import (
    PREFIX,
    ResponseHead,
    final_items,
    final_response,
    head_of,
)
from penstock.edge.openai_responses.stream import KEEP_ALIVE, ResponseStream
from penstock.edge.token_estimate import estimated_tokens
from penstock.edge.wire import Asked, Failure, FailureKind, Headers, Identity
from penstock.service.purity import pure

NOTHING = Context()
SERVER_ERROR = "server_error"
FAILED_CODES = {
    FailureKind.INVALID: "invalid_prompt",
    FailureKind.RATE_LIMITED: "rate_limit_exceeded",
    FailureKind.NO_BUDGET: "rate_limit_exceeded",
}
"""Codes of responses that failed, for which the protocol has a list of its own; others are
`server_error`.
"""


@dataclass(frozen=True)
class ResponseAsked(Asked):
    """A request for a response.

    Attributes:
        body: the request.
        context: what the store has of what it refers to.
        keeps: whether there is a store for responses.
    """

    body: Json = field(default_factory=dict)
    context: Context = NOTHING
    keeps: bool = False


class OpenAIResponses:
    """See Wire."""

    @pure
    def needs(self, given: Json) -> References:
        """What must be fetched from the store before the request can be read.

        Raises:
            BadRequest: naming the field that is wrong.
        """
        return references(given)

    @pure
    def read(
        self,
        body: bytes,
        headers: Headers,
        context: Context = NOTHING,
        *,
        keeps: bool = False,
    ) -> ResponseAsked:
        """See Wire."""
        return self.read_given(parse_body(body), context, keeps=keeps)

    @pure
    def read_given(
        self, given: Json, context: Context = NOTHING, *, keeps: bool = False
    ) -> ResponseAsked:
        """See Wire.

        Args:
            given: the body.
            context: what the store has of what the request `needs`.
            keeps: whether there is a store for responses.
        """
        head_of(given, "", 0, "")  # what is only shown again is checked before the answer is made
        return ResponseAsked(
            task=task_of(given, context),
            model=text(given.get("model"), "model"),
            streams=boolean(given.get("stream"), "stream") or False,
            ignored=ignored_fields(given),
            affinity=text(given.get("prompt_cache_key"), "prompt_cache_key"),
            metadata=metadata_of(given),
            body=given,
            context=context,
            keeps=keeps,
        )

    @pure
    def countable(self, body: bytes) -> Json:
        """A request for a count of tokens, which need not have an input.

        Raises:
            BadRequest: it is no JSON object.
        """
        given = parse_body(body)
        return given if given.get("input") is not None else {**given, "input": []}

    @pure
    def read_count(self, given: Json, context: Context = NOTHING) -> Asked:
        """What is to be counted.

        Raises:
            BadRequest: as `read`.
        """
        task = task_of(given, context, needs_input=False)
        return Asked(task, text(given.get("model"), "model"), ignored=ignored_fields(given))

    @pure
    def count(self, asked: Asked) -> bytes:
        """The tokens of a request, estimated from the script of its texts."""
        tokens = estimated_tokens(asked.task)
        return orjson.dumps({"object": "response.input_tokens", "input_tokens": tokens})

    @pure
    def whole(
        self,
        result: pb.GenerateResult,
        usage: common_pb2.Usage,
        asked: Asked,
        identity: Identity,
    ) -> bytes:
        """See Wire."""
        return orjson.dumps(_response(_finished(result, usage, asked, identity)))

    @pure
    def kept(
        self,
        result: pb.GenerateResult,
        usage: common_pb2.Usage,
        asked: Asked,
        identity: Identity,
    ) -> KeptResponse | None:
        """What is to be kept of a finished answer; None where its caller wants nothing kept."""
        return _kept(_finished(result, usage, asked, identity), _own(asked))

    def events(self, asked: Asked, identity: Identity) -> ResponseEvents:
        """See Wire."""
        return ResponseEvents(_own(asked), identity)

    @pure
    def error(self, failure: Failure, request_id: str) -> tuple[int, bytes]:
        """See Wire."""
        return status_of(failure), orjson.dumps(error_object(failure))


class ResponseEvents:
    """See Events."""

    def __init__(self, asked: ResponseAsked, identity: Identity) -> None:
        self._asked = asked
        self._head = response_head(asked, identity)
        self._stream = ResponseStream(self._head)
        self._usage = common_pb2.Usage()

    def start(self) -> bytes:
        """See Events."""
        return self._stream.start()

    def piece(self, chunk: pb.GenerateChunk) -> bytes:
        """See Events."""
        return self._stream.piece(chunk)

    def end(self, usage: common_pb2.Usage) -> bytes:
        """See Events."""
        self._usage = usage
        return self._stream.end(usage)

    def kept(self) -> KeptResponse | None:
        """What is to be kept of the answer, after its end; None where its caller wants nothing
        kept.
        """
        blocks, finish_reason = self._stream.blocks, self._stream.finish_reason
        return _kept(_Finished(self._head, blocks, finish_reason, self._usage), self._asked)

    def failure(self, failure: Failure) -> bytes:
        """See Events."""
        code = FAILED_CODES.get(failure.kind, SERVER_ERROR)
        return self._stream.failure(code, failure.message)

    def keep_alive(self) -> bytes:
        """See Events."""
        return KEEP_ALIVE


@dataclass(frozen=True)
class _Finished:
    """A finished answer, whole or streamed."""

    head: ResponseHead
    blocks: Sequence[Block]
    finish_reason: pb.FinishReason
    usage: common_pb2.Usage


@pure
def response_head(asked: ResponseAsked, identity: Identity) -> ResponseHead:
    """The head of the response to a request."""
    response_id, created_s = PREFIX + identity.number, identity.created_s
    return head_of(asked.body, response_id, created_s, identity.model, keeps=asked.keeps)


def _own(asked: Asked) -> ResponseAsked:
    if not isinstance(asked, ResponseAsked):
        raise TypeError("the request was read by another wire")
    return asked


def _finished(
    result: pb.GenerateResult, usage: common_pb2.Usage, asked: Asked, identity: Identity
) -> _Finished:
    head = response_head(_own(asked), identity)
    return _Finished(head, blocks_of(result), result.finish_reason, usage)


def _response(done: _Finished) -> Json:
    return final_response(done.head, done.blocks, done.finish_reason, done.usage)


def _kept(done: _Finished, asked: ResponseAsked) -> KeptResponse | None:
    if not done.head.is_stored:
        return None
    options = done.head.item_options._replace(has_state=True)
    output = final_items(done.blocks, done.finish_reason, options)
    inputs = input_of(asked.body, asked.context)
    return kept_response(_response(done), asked.context.items, inputs, output)
