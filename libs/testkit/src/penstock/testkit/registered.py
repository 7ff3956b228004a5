"""An instance served by this process and registered with a router, for as long as it is needed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.hosting.grpc_server import GrpcServer
from penstock.rpc.auth import internal
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.registration import Registrar
from penstock.service.settings import ServiceSettings
from penstock.tasks.kinds import numbers_of
from penstock.testkit.instance import INFERENCE


@dataclass(frozen=True)
class Registration:
    """What the router is told of an instance.

    Attributes:
        id: the instance's id.
        model: name of its one model.
        tasks: the task kinds that the model serves.
        concurrency: requests that it takes at a time.
        revision: the model's revision.
        max_input_tokens: the model's longest input; 0: unknown.
        tenancy: whether it shares its machine with others or stands for a hosted model.
    """

    id: str
    model: str
    tasks: tuple[str, ...] = ("embed",)
    concurrency: int = 1
    revision: str = "demo"
    max_input_tokens: int = 0
    tenancy: router_pb2.Tenancy = field(default=router_pb2.TENANCY_UNSPECIFIED)

    def instance(self, address: str) -> router_pb2.Instance:
        """The message that registers the instance at an address."""
        model = inference_pb2.Model(
            name=self.model,
            state=inference_pb2.MODEL_STATE_READY,
            tasks=numbers_of(self.tasks),
            revision=self.revision,
            max_input_tokens=self.max_input_tokens,
        )
        return router_pb2.Instance(
            id=self.id,
            address=address,
            models=[model],
            concurrency=self.concurrency,
            tenancy=self.tenancy,
        )


@contextlib.asynccontextmanager
async def registered_instance(
    servicer: object, registration: Registration, router_address: str, token: str
) -> AsyncIterator[None]:
    """Serve an InferenceService on a free port and keep it registered; leave and stop afterwards.

    Args:
        servicer: the InferenceService.
        registration: what the router is told.
        router_address: `host:port` of the router.
        token: the internal token of router and instance.
    """
    settings = ServiceSettings(listen="127.0.0.1:0", drain_s=0)
    endpoint = Endpoint(INFERENCE, servicer, internal(token))
    server = GrpcServer(registration.id, settings, [endpoint])
    await server.start()
    registrar = Registrar(router_address, registration.instance(server.address), token)
    registrar.start()
    try:
        yield
    finally:
        await registrar.leave()
        await server.stop(None)
