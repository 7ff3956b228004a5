"""Anthropic's Messages as a wire of the edge: `POST /v1/messages` and its `count_tokens`."""

from __future__ import annotations

import orjson
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.anthropic_messages.answer import message
from penstock.edge.anthropic_messages.errors import KINDS, error_object
from penstock.edge.anthropic_messages.request import (
    ignored_fields,
    metadata_of,
    model_of,
    task_of,
)
from penstock.edge.anthropic_messages.stream import ERROR, PING, MessageStream
from penstock.edge.json_fields import boolean, parse_body
from penstock.edge.token_estimate import estimated_tokens
from penstock.edge.wire import Asked, Failure, Headers, Identity
from penstock.service.purity import pure


class AnthropicMessages:
    """See Wire."""

    @pure
    def read(self, body: bytes, headers: Headers) -> Asked:
        """See Wire."""
        given = parse_body(body)
        return Asked(
            task=task_of(given),
            model=model_of(given),
            streams=boolean(given.get("stream"), "stream") or False,
            ignored=ignored_fields(given),
            metadata=metadata_of(given),
        )

    @pure
    def read_count(self, body: bytes, headers: Headers) -> Asked:
        """A request for a count of tokens.

        Raises:
            BadRequest: as `read`.
        """
        given = parse_body(body)
        task = task_of(given, needs_length=False)
        return Asked(task, model_of(given), ignored=ignored_fields(given))

    @pure
    def count(self, asked: Asked) -> bytes:
        """The tokens of a request, estimated from the script of its texts."""
        return orjson.dumps({"input_tokens": estimated_tokens(asked.task)})

    @pure
    def whole(
        self,
        result: pb.GenerateResult,
        usage: common_pb2.Usage,
        asked: Asked,
        identity: Identity,
    ) -> bytes:
        """See Wire."""
        return message(result, usage, message_id(identity), identity.model)

    def events(self, asked: Asked, identity: Identity) -> MessageEvents:
        """See Wire."""
        return MessageEvents(asked, identity)

    @pure
    def error(self, failure: Failure, request_id: str) -> tuple[int, bytes]:
        """See Wire."""
        return KINDS[failure.kind].status, orjson.dumps(error_object(failure, request_id))


class MessageEvents(MessageStream):
    """See Events."""

    def __init__(self, asked: Asked, identity: Identity) -> None:
        estimate = estimated_tokens(asked.task)
        super().__init__(message_id(identity), identity.model, estimate)

    def failure(self, failure: Failure) -> bytes:
        """See Events."""
        return ERROR % orjson.dumps(error_object(failure, ""))

    def keep_alive(self) -> bytes:
        """See Events."""
        return PING


@pure
def message_id(identity: Identity) -> str:
    """The message's identifier."""
    return f"msg_{identity.number}"
