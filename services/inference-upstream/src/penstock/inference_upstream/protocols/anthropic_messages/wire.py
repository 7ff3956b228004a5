"""`POST /messages`. See Wire."""

from __future__ import annotations

from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.anthropic_messages.answer import (
    MessageStream,
    parse_message,
)
from penstock.inference_upstream.protocols.anthropic_messages.request import message_request
from penstock.inference_upstream.protocols.wire import Target


class AnthropicMessages:
    """See Wire."""

    path = "/messages"
    number = pb.WIRE_ANTHROPIC_MESSAGES

    def request(self, task: pb.GenerateTask, target: Target, *, stream: bool) -> dict[str, Any]:
        return message_request(task, target, stream=stream)

    def parse(self, body: bytes, task: pb.GenerateTask, target: Target) -> pb.TaskResult:
        return parse_message(body, task, target)

    def stream(self, task: pb.GenerateTask, target: Target) -> MessageStream:
        return MessageStream(task, target)
