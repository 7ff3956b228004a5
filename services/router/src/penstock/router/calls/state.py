"""One call on its way through the router, and what comes of it. Values only."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.router.calls.receipt import ReceiptBuilder
from penstock.router.requests.resolved import ResolvedRequest
from penstock.rpc.call import Call
from penstock.rpc.spans import Span


class Outcome(NamedTuple):
    """A finished call."""

    result: inference_pb2.TaskResult
    receipt: common_pb2.Receipt


@dataclass(slots=True)
class CallState:
    """What is known of a call so far."""

    request: ResolvedRequest
    call: Call
    """As it came."""
    span: Span
    """Around the whole way; `span.call` is handed to the next hop."""
    began_s: float
    receipt: ReceiptBuilder
    spare_models: list[str]
    """Models still to be tried when the present one cannot serve."""
    tried: set[str] = field(default_factory=set)
    """Instances that were given this call."""
    attempts: int = 0
    streams: bool = False
    """Whether the answer leaves piece by piece, over a time in which an instance may go."""
    said_bytes: int = 0
    """UTF-8 bytes of the pieces of a stream that were passed on."""
    prefix_blocks: tuple[Hashable, ...] | None = None
    """Chained hashes of the prompt, once they have been needed."""
    unshaped: inference_pb2.Task | None = None
    """The task as it came, where the prompt was shaped."""
    unshaped_for: tuple[str, ...] = ()
    """Spare models that get the task as it came: another rule applies to their prompts."""

    def go_on_with(self, model: str) -> None:
        """Turn to a spare model, with the prompt as it came where its own rule is another."""
        request = self.request
        task = request.task
        if self.unshaped is not None and model in self.unshaped_for:
            task = self.unshaped
        self.prefix_blocks = None
        self.receipt.go_on_with(model, shaped=task is request.task)
        self.tried.clear()
        self.request = request._replace(model=model, task=task)
