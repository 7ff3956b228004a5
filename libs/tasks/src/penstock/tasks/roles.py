"""The roles of a conversation's turns, by the names that chat templates and the OpenAI API use."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.api.inference.v1 import inference_pb2

ROLE_NAMES: Mapping[int, str] = {
    inference_pb2.ROLE_SYSTEM: "system",
    inference_pb2.ROLE_USER: "user",
    inference_pb2.ROLE_ASSISTANT: "assistant",
    inference_pb2.ROLE_TOOL: "tool",
}
ROLES: Mapping[str, inference_pb2.Role] = {
    "system": inference_pb2.ROLE_SYSTEM,
    "user": inference_pb2.ROLE_USER,
    "assistant": inference_pb2.ROLE_ASSISTANT,
    "tool": inference_pb2.ROLE_TOOL,
}
