"""A batcher process with two instances attached: the real model and an instant one."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from penstock.api.batcher.v1 import batcher_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.bench.harness.echo import TOKEN, EchoAddresses
from penstock.bench.harness.processes import cpu_s, home_folder, supervised
from penstock.rpc.call import Call
from penstock.rpc.peers.stream import Peer, connect
from penstock.stack import ports
from penstock.stack.plan import DEFAULT_MODEL, StackPlan

BATCHER = batcher_pb2.DESCRIPTOR.services_by_name["BatcherService"]
REAL, INSTANT = "real", "instant"
"""Ids of the two instances."""


@dataclass
class BatcherProcess:
    """A connection to the batcher, its process id, and the model of the real instance."""

    peer: Peer
    pid: int
    model: str = DEFAULT_MODEL

    async def set_max_rows(self, rows: int) -> None:
        """Set the most rows of a batch."""
        request = batcher_pb2.ConfigureRequest(knobs=batcher_pb2.Knobs(max_batch_size=rows))
        await self.peer.call("Configure", request, Call())

    async def embed(self, text: str, priority: int | None = None) -> object:
        """Embed a text with the real model."""
        task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text]))
        request = batcher_pb2.ComputeRequest(instance_id=REAL, model=self.model, task=task)
        call = Call() if priority is None else Call(priority=priority)
        return await self.peer.call("Compute", request, call)

    def cpu_s(self) -> float:
        """CPU seconds of the batcher so far."""
        return cpu_s(self.pid)


@contextlib.asynccontextmanager
async def batcher_process(
    echo: EchoAddresses, home: Path | None = None, model: str = DEFAULT_MODEL, **settings: str
) -> AsyncIterator[BatcherProcess]:
    """Start a batcher and an instance; attach it and the echo, each with one slot.

    Args:
        echo: the instant instance.
        home: folder with the model; None: that of all models here.
        model: what the real instance serves.
        settings: of the real instance.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-batching-") as folder:
        config = Path(folder) / "penstock.yaml"
        config.write_text("{}")
        plan = StackPlan(ports.free(), home or home_folder(), Path(folder), config, TOKEN)
        async with supervised() as supervisor:
            await supervisor.start(plan.batcher_and_instance(models=model, **settings))
            peer = connect(plan.addresses["batcher"], BATCHER, token=TOKEN)
            addresses = {REAL: plan.addresses["inference-1"], INSTANT: echo.endpoint}
            for name, address in addresses.items():
                request = batcher_pb2.AttachInstanceRequest(
                    instance_id=name, address=address, concurrency=1
                )
                await peer.call("AttachInstance", request, Call())
            child = supervisor.child("batcher")
            assert child is not None
            try:
                yield BatcherProcess(peer, child.pid, model)
            finally:
                await peer.close()
