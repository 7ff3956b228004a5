"""A refusal of another wire's provider, as a chat completion: clients must not take it for an
answer.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.openai_chat.wire import ChatCompletions
from penstock.edge.wire import Asked, Identity

ASKED = Asked(pb.GenerateTask(), "m")
IDENTITY = Identity("0" * 32, 1, "m")


def whole_choice(message: pb.Message) -> Any:
    result = pb.GenerateResult(message=message, finish_reason=pb.FINISH_REASON_REFUSED)
    body = ChatCompletions().whole(result, common_pb2.Usage(), ASKED, IDENTITY)
    return orjson.loads(body)["choices"][0]


def streamed_finish(**fields: str) -> str:
    events = ChatCompletions().events(ASKED, IDENTITY)
    events.piece(pb.GenerateChunk(**fields))
    last = events.piece(pb.GenerateChunk(finish_reason=pb.FINISH_REASON_REFUSED))
    finish: str = orjson.loads(last.removeprefix(b"data: "))["choices"][0]["finish_reason"]
    return finish


@pytest.mark.parametrize(("field", "finish"), [("content", "content_filter"), ("refusal", "stop")])
def test_whole(field: str, finish: str) -> None:
    choice = whole_choice(pb.Message(**{field: "I cannot."}))
    assert choice["finish_reason"] == finish
    assert choice["message"][field] == "I cannot."


def test_streamed() -> None:
    assert streamed_finish(delta="I cannot.") == "content_filter"
    assert streamed_finish(refusal="I cannot.") == "stop"
