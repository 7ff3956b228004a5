"""A chat as a task, and what was said to it as a result."""

from __future__ import annotations

from typing import Any

from penstock.api.cache.v1 import cache_pb2
from penstock.api.inference.v1 import inference_pb2

STOP = inference_pb2.FINISH_REASON_STOP


def chat(text: str, system: str = "You sort requests.", **more: Any) -> inference_pb2.Task:
    """One system message and one of the user; `more` are fields of the task."""
    task = inference_pb2.Task()
    task.generate.messages.add(role="system", content=system)
    task.generate.messages.add(role="user", content=text)
    for name, value in more.items():
        if name == "tools":
            task.generate.tools.extend(value)
        else:
            setattr(task.generate, name, value)
    return task


def chat_result(text: str, reason: int = STOP) -> inference_pb2.TaskResult:
    """An answer of one text that took 50 ms."""
    result = inference_pb2.TaskResult(compute_ms=50)
    result.generate.message.role, result.generate.message.content = "assistant", text
    result.generate.finish_reason = reason  # type: ignore[assignment]
    return result


def look_up_request(task: inference_pb2.Task, **more: Any) -> cache_pb2.LookUpRequest:
    """A look-up of a dear model; `more` are fields of it, and `model` and `namespace` of its
    scope.
    """
    scope = cache_pb2.Scope(model=more.pop("model", "chat"), namespace=more.pop("namespace", ""))
    return cache_pb2.LookUpRequest(
        scope=scope, task=task, full_price_microusd=more.pop("price", 500), **more
    )
