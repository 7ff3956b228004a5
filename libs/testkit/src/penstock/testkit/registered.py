"""An instance served by this process and registered with a router, for as long as it is needed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.hosting.grpc_server import GrpcServer
from penstock.rpc.auth import Authenticator, services_only
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.peers.stream import open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.rpc.registration import SERVICE as REGISTRY
from penstock.rpc.registration import Registrar
from penstock.service.service_tokens import SharedToken, Tokens
from penstock.service.settings import ServiceSettings
from penstock.service.tls_files import TlsFiles, TlsSource
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


@dataclass(frozen=True)
class InstanceIdentity:
    """What an instance proves itself with, and whom it believes.

    Attributes:
        token: an operator's, with which it registers.
        tokens: of those that call it; None: they hold `token` too.
        tls: its certificate; None for plaintext.
    """

    token: str
    tokens: Tokens | None = None
    tls: TlsSource | None = None

    def settings(self) -> ServiceSettings:
        """Of the instance's port."""
        files = self.tls.files if self.tls is not None else TlsFiles()
        return ServiceSettings(
            listen="127.0.0.1:0",
            drain_s=0,
            tls_cert=files.certificate,
            tls_key=files.key,
            tls_ca=files.authorities,
        )

    def authenticator(self) -> Authenticator:
        """Of those that call it."""
        return services_only(INFERENCE, self.tokens or SharedToken(self.token))

    def dial(self, address: str) -> UnaryPeer:
        """A connection to the registry."""
        channel = open_channel(address, self.tls, "router")
        token = self.token if self.tls is None else ""
        return UnaryPeer(channel, REGISTRY, token=token)


@contextlib.asynccontextmanager
async def registered_instance(
    servicer: object,
    registration: Registration,
    router_address: str,
    identity: InstanceIdentity | str,
) -> AsyncIterator[None]:
    """Serve an InferenceService on a free port and keep it registered; leave and stop afterwards.

    Args:
        servicer: the InferenceService.
        registration: what the router is told.
        router_address: `host:port` of the router's registry.
        identity: what it proves itself with; a text is the token that all services share.
    """
    if isinstance(identity, str):
        identity = InstanceIdentity(identity)
    settings = identity.settings()
    endpoint = Endpoint(INFERENCE, servicer, identity.authenticator())
    server = GrpcServer(registration.id, settings, [endpoint])
    await server.start()
    instance = registration.instance(server.address)
    registrar = Registrar(router_address, instance, identity.token, dial=identity.dial)
    registrar.start()
    try:
        yield
    finally:
        await registrar.leave()
        await server.stop(None)
