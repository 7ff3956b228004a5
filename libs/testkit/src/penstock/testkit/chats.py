"""Messages of a short chat: the task, its result, and the look-up of it in the cache."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from penstock.api.cache.v1 import cache_pb2
from penstock.api.inference.v1 import inference_pb2

STOP = inference_pb2.FINISH_REASON_STOP
COMPUTE_MS = 50
PRICE_MICROUSD = 500


def chat(text: str, system: str = "You sort requests.", **fields: Any) -> inference_pb2.Task:
    """A generate task of one system and one user message; `fields` are further ones of the task."""
    task = inference_pb2.Task()
    task.generate.messages.add(role=inference_pb2.ROLE_SYSTEM, content=system)
    task.generate.messages.add(role=inference_pb2.ROLE_USER, content=text)
    for name, value in fields.items():
        if name == "tools":
            task.generate.tools.extend(value)
        elif isinstance(value, Message):
            getattr(task.generate, name).CopyFrom(value)
        else:
            setattr(task.generate, name, value)
    return task


def chat_result(
    text: str, finish_reason: inference_pb2.FinishReason = STOP
) -> inference_pb2.TaskResult:
    """The result of a generate task: one text that took 50 ms."""
    result = inference_pb2.TaskResult(compute_ms=COMPUTE_MS)
    result.generate.message.role = inference_pb2.ROLE_ASSISTANT
    result.generate.message.content = text
    result.generate.finish_reason = finish_reason
    return result


def look_up_request(task: inference_pb2.Task, **fields: Any) -> cache_pb2.LookUpRequest:
    """A look-up of a task whose answer costs 500 micro-dollars.

    `model` and `namespace` are fields of its scope, `price` is the full price in micro-dollars, all
    other fields are the request's own.
    """
    scope = cache_pb2.Scope(
        model=fields.pop("model", "chat"), namespace=fields.pop("namespace", "")
    )
    price_microusd = fields.pop("price", PRICE_MICROUSD)
    return cache_pb2.LookUpRequest(
        scope=scope, task=task, full_price_microusd=price_microusd, **fields
    )
