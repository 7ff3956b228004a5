"""A request in the queue of one instance, as ordering and grouping see it and with its caller; its
answer; and the instance as the queue sees it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.rpc.call import Call

LOW, NORMAL, HIGH, CRITICAL = 1, 2, 3, 4
"""The priority classes, numbered as in the contract."""


class WorkItem(NamedTuple):
    """A request without its caller and its content.

    `tokens` is its size and `rows` the number of its texts. `arrived_s` and `deadline_s`, the
    latest moment to begin it, are on the monotonic clock. A streamed item shares no batch and is
    counted apart from those that are answered whole. `run_id` is the agent run that it is a step
    of, empty for a single call.

    A named tuple, because one is made for every request and a frozen dataclass takes four times as
    long to make.
    """

    id: int
    priority: int
    tenant: str
    model: str
    rows: int
    tokens: int
    arrived_s: float
    deadline_s: float
    is_streamed: bool = False
    run_id: str = ""

    def shares_limit_with(self, other: WorkItem) -> bool:
        """Whether both count towards the same queue limit."""
        return self.model == other.model and self.is_streamed == other.is_streamed

    def can_begin_in_time(self, now: float, wait_ms: float) -> bool:
        """Whether the item would start by its `deadline_s` after waiting `wait_ms`."""
        return wait_ms <= (self.deadline_s - now) * 1e3

    @property
    def tokens_per_row(self) -> int:
        """Tokens of each row, rounded up; at least 1."""
        return max(1, -(-self.tokens // max(1, self.rows)))


class TaskSize(NamedTuple):
    """What a task takes of a batch."""

    rows: int
    tokens: int


class Answer(NamedTuple):
    """A request's result, the batch that it ran in, and the instance's load then."""

    result: inference_pb2.TaskResult
    receipt: common_pb2.BatchReceipt
    load: common_pb2.LoadReport


@dataclass(eq=False, slots=True)
class PendingRequest:
    """A request from its admission until it is settled.

    A stream's future is done, with an empty answer, when its turn comes.
    """

    item: WorkItem
    task: inference_pb2.Task
    call: Call
    future: asyncio.Future[Answer]
    started_s: float | None = None
    stream_ended: asyncio.Event | None = None
    """Set when the caller of a stream has left; None for other requests."""
    postpone_at_s: float = math.inf
    """When the request goes behind all others of its class, if it still waits."""
    batch: RunningBatch | None = None
    """The batch that runs it in a task of its own; None while it waits, or where its caller's own
    task runs it.
    """

    @property
    def queued_ms(self) -> float:
        """Milliseconds from arrival to start."""
        return ((self.started_s or 0.0) - self.item.arrived_s) * 1e3

    @property
    def stream_receipt(self) -> common_pb2.BatchReceipt:
        """The receipt of a stream: a batch of one, which waited only for a free slot."""
        return common_pb2.BatchReceipt(
            queued_ms=self.queued_ms, batch_size=1, release_reason="instance_free"
        )


@dataclass(eq=False, slots=True)
class RunningBatch:
    """A batch that runs in a task of its own."""

    task: asyncio.Task[None]
    requests: Sequence[PendingRequest]

    def cancel_if_abandoned(self) -> None:
        """Cancel the batch, at the instance too, where no caller waits for it any more."""
        if all(request.future.done() for request in self.requests):
            self.task.cancel()


InstanceResult = tuple[int, inference_pb2.MemberResult, common_pb2.LoadReport]
"""Position in the batch, result, and the instance's load."""


class OneResult(NamedTuple):
    """The answer of a request that ran by itself, and the instance's load."""

    result: inference_pb2.TaskResult
    load: common_pb2.LoadReport


class Instance(Protocol):
    """What the queue needs of the instance behind it."""

    async def run_one(self, request: PendingRequest) -> OneResult:
        """Run one request by itself.

        Raises:
            Fault: it has no answer.
        """
        ...

    def run(self, model: str, requests: Sequence[PendingRequest]) -> AsyncIterator[InstanceResult]:
        """Run a batch; yields the result of each request as soon as it is ready.

        Raises:
            Fault: the batch as a whole failed; requests without a result share this fault.
        """
        ...
