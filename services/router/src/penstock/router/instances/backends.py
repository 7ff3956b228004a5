"""What the router calls: batchers and instances, one connection for each address. Decides nothing.

An instance with a batcher is called through it, and attached there before the first call. Where the
batcher is that of another cell and that cell has gone, the instance is called through this router's
own batcher until it has registered elsewhere; where this router's own has gone, directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import NamedTuple

from google.protobuf.descriptor import ServiceDescriptor
from penstock.api.batcher.v1 import batcher_pb2
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.router.requests.resolved import ResolvedRequest
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, unavailable
from penstock.rpc.peers.stream import Peer
from penstock.rpc.reasons import Reason
from penstock.service.clock import Clock
from penstock.service.purity import pure
from penstock.tasks.wire_request import CAPABILITIES, translated

BATCHER = batcher_pb2.DESCRIPTOR.services_by_name["BatcherService"]
INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
OWNER_PAUSE_S = 3.0
"""A batcher that did not answer is not asked for so long; a cell's instances register elsewhere
within it.
"""
DETACH_S = 2.0
log = logging.getLogger(__name__)
Dial = Callable[[str, ServiceDescriptor], Peer]


class Computed(NamedTuple):
    """An instance's answer, or one piece of it: the last piece of a stream carries the result."""

    result: inference_pb2.TaskResult | None
    batch: common_pb2.BatchReceipt | None = None
    load: common_pb2.LoadReport | None = None
    chunk: inference_pb2.GenerateChunk | None = None


@pure
def task_for(instance: router_pb2.Instance, task: inference_pb2.Task) -> inference_pb2.Task:
    """The task as it is sent to an instance: a request's own bytes go only where they are used."""
    if not task.generate.HasField("wire_request"):
        return task
    capability = CAPABILITIES.get(task.generate.wire_request.wire)
    return task if capability in instance.capabilities else translated(task)


class Backends:
    """Owns the connections."""

    def __init__(self, dial: Dial, default_batcher: str, clock: Clock) -> None:
        self._dial = dial
        self._default_batcher = default_batcher
        self._clock = clock
        self._peers: dict[str, Peer] = {}
        self._attached: dict[str, tuple[str, str]] = {}
        """Batcher and address by instance."""
        self._queued_at: dict[str, set[str]] = {}
        """Every batcher that was given the instance."""
        self._gone_until_s: dict[str, float] = {}
        """Batchers that did not answer, by address."""
        self._attaching: dict[str, asyncio.Lock] = {}

    async def compute(
        self, instance: router_pb2.Instance, request: ResolvedRequest, call: Call
    ) -> Computed:
        """Run a task on an instance; raises Fault."""
        batcher, task = self._batcher_of(instance), task_for(instance, request.task)
        if not batcher:
            direct = inference_pb2.ComputeRequest(model=request.model, task=task)
            peer = self._peer(instance.address, INFERENCE)
            plain: inference_pb2.ComputeResponse = await peer.call("Compute", direct, call)
            return Computed(plain.result, None, plain.load)
        queued = batcher_pb2.ComputeRequest(
            instance_id=instance.id,
            model=request.model,
            task=task,
            estimated_tokens=request.estimate.input_tokens,
        )
        try:
            if self._attached.get(instance.id) != (batcher, instance.address):
                await self._attach(batcher, instance, call)
            answer: batcher_pb2.ComputeResponse = await self._peer(batcher, BATCHER).call(
                "Compute", queued, call
            )
        except Fault as fault:
            await self._note_failure(batcher, instance, fault, call)
            raise
        return Computed(answer.result, answer.batch, answer.load)

    async def stream(
        self, instance: router_pb2.Instance, request: ResolvedRequest, call: Call
    ) -> AsyncGenerator[Computed, None]:
        """Run a conversation on an instance, piece by piece; raises Fault."""
        batcher, task = self._batcher_of(instance), task_for(instance, request.task)
        try:
            if not batcher:
                direct = inference_pb2.ComputeStreamRequest(model=request.model, task=task)
                peer = self._peer(instance.address, INFERENCE)
                parts = peer.stream("ComputeStream", direct, call)
            else:
                if self._attached.get(instance.id) != (batcher, instance.address):
                    await self._attach(batcher, instance, call)
                queued = batcher_pb2.ComputeStreamRequest(
                    instance_id=instance.id,
                    model=request.model,
                    task=task,
                    estimated_tokens=request.estimate.input_tokens,
                )
                parts = self._peer(batcher, BATCHER).stream("ComputeStream", queued, call)
            async with aclosing(parts) as open_parts:  # type: ignore[type-var]
                async for part in open_parts:
                    if part.HasField("result"):
                        batch = part.batch if batcher else None
                        yield Computed(part.result, batch, part.load, part.chunk)
                    else:
                        yield Computed(None, chunk=part.chunk)
        except Fault as fault:
            await self._note_failure(batcher, instance, fault, call)
            raise

    def _batcher_of(self, instance: router_pb2.Instance) -> str:
        """The batcher that the instance is called through; empty: it is called directly."""
        owner = instance.batcher_address or self._default_batcher
        answering = (each for each in (owner, self._default_batcher) if not self._has_gone(each))
        return next(answering, "")

    def _has_gone(self, batcher: str) -> bool:
        if self._clock.monotonic() < self._gone_until_s.get(batcher, 0.0):
            return True
        peer = self._peers.get(batcher)
        return peer is not None and not peer.responds

    async def _attach(self, batcher: str, instance: router_pb2.Instance, call: Call) -> None:
        """Make the batcher ready for the instance; raises Fault, OWNER_GONE where that batcher does
        not answer.
        """
        wanted = (batcher, instance.address)
        async with self._attaching.setdefault(instance.id, asyncio.Lock()):
            if self._attached.get(instance.id) == wanted:
                return
            if self._has_gone(batcher):
                raise _owner_gone(batcher)
            request = batcher_pb2.AttachInstanceRequest(
                instance_id=instance.id,
                address=instance.address,
                concurrency=instance.concurrency,
                adaptive_concurrency=instance.tenancy == router_pb2.TENANCY_UPSTREAM,
            )
            try:
                await self._peer(batcher, BATCHER).call("AttachInstance", request, call)
            except Fault as fault:
                if fault.reason in (Reason.UNAVAILABLE, Reason.PEER_HUNG):
                    self._note_gone(batcher)
                    raise _owner_gone(batcher) from fault
                raise
            self._attached[instance.id] = wanted
            self._queued_at.setdefault(instance.id, set()).add(batcher)

    def _note_gone(self, batcher: str) -> None:
        log.warning(
            "batcher %s does not answer; its instances are called without it for %g s",
            batcher,
            OWNER_PAUSE_S,
        )
        now = self._clock.monotonic()
        still = {each: until for each, until in self._gone_until_s.items() if until > now}
        self._gone_until_s = {**still, batcher: now + OWNER_PAUSE_S}

    async def _note_failure(
        self, batcher: str, instance: router_pb2.Instance, fault: Fault, call: Call
    ) -> None:
        """A batcher that was restarted, or cannot be reached and may have been, has forgotten its
        instances: the next try attaches again. Whether the batcher or the instance behind it cannot
        be reached is found out at once.

        Raises:
            Fault: OWNER_GONE where that batcher has gone or is hung.
        """
        if batcher and self._has_gone(batcher):
            raise _owner_gone(batcher) from fault
        if fault.reason not in (Reason.NOT_ATTACHED, Reason.UNAVAILABLE):
            return
        self._attached.pop(instance.id, None)
        if fault.reason is Reason.UNAVAILABLE and batcher:
            await self._attach(batcher, instance, call)

    async def detach(self, instance_id: str) -> None:
        """Give up an instance that has gone, at every batcher that was given it."""
        self._attached.pop(instance_id, None)
        self._attaching.pop(instance_id, None)
        request = batcher_pb2.DetachInstanceRequest(instance_id=instance_id)
        call = Call(deadline_s=self._clock.monotonic() + DETACH_S)
        for batcher in self._queued_at.pop(instance_id, set()):
            with contextlib.suppress(Fault):
                answer: batcher_pb2.DetachInstanceResponse = await self._peer(
                    batcher, BATCHER
                ).call("DetachInstance", request, call)
                log.info(
                    "instance %s is detached; %d queued requests were given back to be tried "
                    "elsewhere",
                    instance_id,
                    answer.returned,
                )

    def _peer(self, address: str, service: ServiceDescriptor) -> Peer:
        if address not in self._peers:
            self._peers[address] = self._dial(address, service)
        return self._peers[address]

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(peer.close() for peer in self._peers.values()))


def _owner_gone(batcher: str) -> Fault:
    message = f"batcher {batcher}, which owns the instance, does not answer"
    return unavailable(message, reason=Reason.OWNER_GONE)
