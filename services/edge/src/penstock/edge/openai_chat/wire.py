"""The wire of Chat Completions. See `penstock.edge.wire.Wire`."""

from __future__ import annotations

import orjson
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.openai_chat.answer import completion
from penstock.edge.openai_chat.errors import error_object, status_of
from penstock.edge.openai_chat.request import read_request
from penstock.edge.openai_chat.stream import ChunkEvents
from penstock.edge.wire import Asked, Failure, Headers, Identity


class ChatCompletions:
    """OpenAI's Chat Completions."""

    def read(self, body: bytes, headers: Headers) -> Asked:
        """See Wire."""
        return read_request(body)

    def whole(
        self,
        result: pb.GenerateResult,
        usage: common_pb2.Usage,
        asked: Asked,
        identity: Identity,
    ) -> bytes:
        """See Wire."""
        return completion(result, usage, identity)

    def events(self, asked: Asked, identity: Identity) -> ChunkEvents:
        """See Wire."""
        return ChunkEvents(identity, shows_usage=asked.shows_usage)

    def error(self, failure: Failure, request_id: str) -> tuple[int, bytes]:
        """See Wire."""
        return status_of(failure), orjson.dumps(error_object(failure))
