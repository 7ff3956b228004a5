"""What the router calls: batchers and instances, one connection for each address. Decides nothing.

An instance with a batcher is called through it, and attached there before the first call.
"""

from __future__ import annotations

import asyncio
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
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer
from penstock.rpc.reasons import Reason

BATCHER = batcher_pb2.DESCRIPTOR.services_by_name["BatcherService"]
INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
log = logging.getLogger(__name__)
Dial = Callable[[str, ServiceDescriptor], Peer]


class Computed(NamedTuple):
    """An instance's answer, or one piece of it: the last piece of a stream carries the result."""

    result: inference_pb2.TaskResult | None
    batch: common_pb2.BatchReceipt | None = None
    load: common_pb2.LoadReport | None = None
    chunk: inference_pb2.GenerateChunk | None = None


class Backends:
    """Owns the connections."""

    def __init__(self, dial: Dial, default_batcher: str) -> None:
        self._dial = dial
        self._default_batcher = default_batcher
        self._peers: dict[str, Peer] = {}
        self._attached: dict[str, tuple[str, str]] = {}
        """Batcher and address by instance."""
        self._attaching: dict[str, asyncio.Lock] = {}

    async def compute(
        self, instance: router_pb2.Instance, request: ResolvedRequest, call: Call
    ) -> Computed:
        """Run a task on an instance; raises Fault."""
        batcher = instance.batcher_address or self._default_batcher
        if not batcher:
            direct = inference_pb2.ComputeRequest(model=request.model, task=request.task)
            peer = self._peer(instance.address, INFERENCE)
            plain: inference_pb2.ComputeResponse = await peer.call("Compute", direct, call)
            return Computed(plain.result, None, plain.load)
        if self._attached.get(instance.id) != (batcher, instance.address):
            await self._attach(batcher, instance, call)
        queued = batcher_pb2.ComputeRequest(
            instance_id=instance.id,
            model=request.model,
            task=request.task,
            estimated_tokens=request.estimate.input_tokens,
        )
        try:
            answer: batcher_pb2.ComputeResponse = await self._peer(batcher, BATCHER).call(
                "Compute", queued, call
            )
        except Fault as fault:
            self._detach_if_forgotten(instance.id, fault)
            raise
        return Computed(answer.result, answer.batch, answer.load)

    async def stream(
        self, instance: router_pb2.Instance, request: ResolvedRequest, call: Call
    ) -> AsyncGenerator[Computed, None]:
        """Run a conversation on an instance, piece by piece; raises Fault."""
        batcher = instance.batcher_address or self._default_batcher
        if not batcher:
            direct = inference_pb2.ComputeStreamRequest(model=request.model, task=request.task)
            parts = self._peer(instance.address, INFERENCE).stream("ComputeStream", direct, call)
        else:
            if self._attached.get(instance.id) != (batcher, instance.address):
                await self._attach(batcher, instance, call)
            queued = batcher_pb2.ComputeStreamRequest(
                instance_id=instance.id,
                model=request.model,
                task=request.task,
                estimated_tokens=request.estimate.input_tokens,
            )
            parts = self._peer(batcher, BATCHER).stream("ComputeStream", queued, call)
        try:
            async with aclosing(parts) as open_parts:  # type: ignore[type-var]
                async for part in open_parts:
                    if part.HasField("result"):
                        batch = part.batch if batcher else None
                        yield Computed(part.result, batch, part.load, part.chunk)
                    else:
                        yield Computed(None, chunk=part.chunk)
        except Fault as fault:
            self._detach_if_forgotten(instance.id, fault)
            raise

    async def _attach(self, batcher: str, instance: router_pb2.Instance, call: Call) -> None:
        wanted = (batcher, instance.address)
        async with self._attaching.setdefault(instance.id, asyncio.Lock()):
            if self._attached.get(instance.id) == wanted:
                return
            request = batcher_pb2.AttachInstanceRequest(
                instance_id=instance.id,
                address=instance.address,
                concurrency=instance.concurrency,
                adaptive_concurrency=instance.tenancy == router_pb2.TENANCY_UPSTREAM,
            )
            await self._peer(batcher, BATCHER).call("AttachInstance", request, call)
            self._attached[instance.id] = wanted

    def _detach_if_forgotten(self, instance_id: str, fault: Fault) -> None:
        """A batcher that was restarted, or cannot be reached and may have been, has forgotten its
        instances: the next try attaches again.
        """
        if fault.reason in (Reason.NOT_ATTACHED, Reason.UNAVAILABLE):
            self._attached.pop(instance_id, None)

    async def detach(self, instance_id: str) -> None:
        """Give up an instance that has gone."""
        attached = self._attached.pop(instance_id, None)
        self._attaching.pop(instance_id, None)
        if attached is not None:
            request = batcher_pb2.DetachInstanceRequest(instance_id=instance_id)
            answer: batcher_pb2.DetachInstanceResponse = await self._peer(
                attached[0], BATCHER
            ).call("DetachInstance", request, Call())
            log.info(
                "instance %s is detached; %d queued requests were given back to be tried elsewhere",
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
