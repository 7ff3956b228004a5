"""`POST /chat/completions`. See Wire."""

from __future__ import annotations

from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.openai_chat.answer import ChatStream, parse_chat
from penstock.inference_upstream.protocols.openai_chat.request import chat_request
from penstock.inference_upstream.protocols.wire import Target


class OpenAiChat:
    """See Wire."""

    path = "/chat/completions"
    number = pb.WIRE_OPENAI_CHAT

    def request(self, task: pb.GenerateTask, target: Target, *, stream: bool) -> dict[str, Any]:
        return chat_request(task, target, stream=stream)

    def parse(self, body: bytes, task: pb.GenerateTask, target: Target) -> pb.TaskResult:
        return parse_chat(body, task, target)

    def stream(self, task: pb.GenerateTask, target: Target) -> ChatStream:
        return ChatStream(task, target)
