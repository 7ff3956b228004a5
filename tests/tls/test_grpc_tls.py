"""TLS at a gRPC port: who is let in, who is believed, and certificates that change."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from penstock.api.inference.v1 import inference_pb2
from penstock.hosting.grpc_server import GrpcServer
from penstock.rpc.auth import internal
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import Fault, unimplemented
from penstock.rpc.peers.stream import Peer, connect, open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.service.settings import ServiceSettings
from penstock.service.tls_files import TlsFiles, TlsSource
from penstock.testkit.eventually import eventually
from penstock.testkit.server import TOKEN

from tests.tls.conftest import Certificates

SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
REQUEST = inference_pb2.ListModelsRequest()


class Instance:
    """Answers with no models."""

    async def ListModels(
        self, request: inference_pb2.ListModelsRequest, call: Call
    ) -> inference_pb2.ListModelsResponse:
        return inference_pb2.ListModelsResponse()

    async def other(self, request: object, call: Call) -> object:
        raise unimplemented("only ListModels is")

    Compute = ComputeStream = ComputeBatch = LoadModel = UnloadModel = other


@contextlib.asynccontextmanager
async def serving(files: TlsFiles, *, mutual: bool = True) -> AsyncIterator[str]:
    settings = ServiceSettings(
        listen="127.0.0.1:0",
        tls_cert=files.certificate,
        tls_key=files.key,
        tls_ca=files.authorities,
    )
    endpoint = Endpoint(SERVICE, Instance(), internal(TOKEN))
    server = GrpcServer("test", settings, [endpoint], demands_certificate=mutual)
    await server.start()
    try:
        yield server.address
    finally:
        await server.stop(None)


async def ask(peer: Peer) -> None:
    """Call once and close; raises Fault."""
    try:
        loop = asyncio.get_running_loop()
        await peer.call("ListModels", REQUEST, Call(deadline_s=loop.time() + 5.0))
    finally:
        await peer.close()


def plain(address: str, tls: TlsSource | None, expected_name: str = "") -> Peer:
    return UnaryPeer(open_channel(address, tls, expected_name), SERVICE, token=TOKEN)


async def refused(peer: Peer) -> Fault:
    with pytest.raises(Fault) as caught:
        await ask(peer)
    assert caught.value.code.name == "UNAVAILABLE"
    return caught.value


async def test_services_with_certificates_of_one_authority_call_each_other(
    certificates: Certificates,
) -> None:
    client = certificates.source("router")
    async with serving(certificates.issue("cache")) as address:
        await ask(plain(address, client))
        await ask(plain(address, client, "cache"))
        await ask(connect(address, SERVICE, token=TOKEN, tls=client))


@pytest.mark.threat("plaintext downgrade: a client without TLS")
async def test_a_port_with_tls_takes_no_plaintext(certificates: Certificates) -> None:
    async with serving(certificates.issue("cache"), mutual=False) as address:
        await refused(plain(address, None))


@pytest.mark.threat("plaintext downgrade: a server without TLS")
async def test_a_client_with_tls_sends_nothing_to_a_port_without(
    certificates: Certificates,
) -> None:
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(1 << 16))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await refused(plain(address, certificates.source("router")))
    server.close()
    assert heard[:1] == b"\x16", "no more than the first message of a handshake"
    assert TOKEN.encode() not in heard


@pytest.mark.threat("wrong authority: a server that another authority has certified")
async def test_a_server_of_another_authority_is_not_believed(
    certificates: Certificates, foreign: Certificates
) -> None:
    async with serving(foreign.issue("cache"), mutual=False) as address:
        await refused(plain(address, certificates.source("router")))


@pytest.mark.threat("wrong authority: a client that another authority has certified")
async def test_a_client_of_another_authority_is_not_let_in(
    certificates: Certificates, foreign: Certificates
) -> None:
    files = certificates.issue("cache")
    stranger = foreign.issue("router")
    disguised = TlsSource(TlsFiles(stranger.certificate, stranger.key, files.authorities))
    async with serving(files) as address:
        await refused(plain(address, disguised))


@pytest.mark.threat("no certificate at a port for services")
async def test_a_client_without_certificate_is_not_let_in(certificates: Certificates) -> None:
    files = certificates.issue("cache")
    async with serving(files) as address:
        await refused(plain(address, TlsSource(TlsFiles(authorities=files.authorities))))


async def test_a_public_port_asks_for_no_certificate(certificates: Certificates) -> None:
    files = certificates.issue("router")
    async with serving(files, mutual=False) as address:
        await ask(plain(address, TlsSource(TlsFiles(authorities=files.authorities))))


@pytest.mark.threat("wrong host: a certificate for another address")
async def test_a_server_with_a_certificate_for_another_host_is_not_believed(
    certificates: Certificates,
) -> None:
    async with serving(certificates.issue("cache", "cache.example")) as address:
        await refused(plain(address, certificates.source("router")))


@pytest.mark.threat("wrong service: another service at the address")
async def test_a_service_is_not_taken_for_another(certificates: Certificates) -> None:
    async with serving(certificates.issue("telemetry")) as address:
        await refused(plain(address, certificates.source("router"), "cache"))


@pytest.mark.threat("expired certificate: a server's")
async def test_a_server_with_an_expired_certificate_is_not_believed(
    certificates: Certificates,
) -> None:
    async with serving(certificates.issue("cache", valid_days=-1)) as address:
        await refused(plain(address, certificates.source("router")))


@pytest.mark.threat("expired certificate: a client's")
async def test_a_client_with_an_expired_certificate_is_not_let_in(
    certificates: Certificates,
) -> None:
    async with serving(certificates.issue("cache")) as address:
        await refused(plain(address, certificates.source("router", valid_days=-1)))


@pytest.mark.threat("protocol downgrade: TLS 1.1")
async def test_tls_older_than_1_2_is_refused(certificates: Certificates) -> None:
    async with serving(certificates.issue("cache"), mutual=False) as address:
        newest = await asyncio.to_thread(handshake, address, ssl.TLSVersion.TLSv1_2)
        assert newest == "TLSv1.2"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(handshake, address, ssl.TLSVersion.TLSv1_1)


def handshake(address: str, version: ssl.TLSVersion) -> str | None:
    """The version that a client which speaks no other gets; raises SSLError for none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    with pytest.warns(DeprecationWarning) if version < ssl.TLSVersion.TLSv1_2 else _nothing():
        context.minimum_version = context.maximum_version = version
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 5.0) as raw, context.wrap_socket(raw) as wire:
        return wire.version()


def _nothing() -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


async def test_new_connections_use_a_renewed_certificate_and_old_ones_go_on(
    certificates: Certificates,
) -> None:
    files = certificates.issue("cache", "127.0.0.1")
    client = certificates.source("router")
    async with serving(files) as address, open_channel(address, client) as old:
        await health(old)
        certificates.issue("cache", "127.0.0.1", "renewed.example")
        await health(old)
        async with open_channel(address, client, "renewed.example") as new:
            await health(new)


async def test_a_client_calls_on_with_a_renewed_certificate(certificates: Certificates) -> None:
    client = certificates.source("router", valid_days=-1)
    async with (
        serving(certificates.issue("cache")) as address,
        open_channel(address, client) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await health(channel)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        certificates.issue("router")

        async def serves() -> bool:
            await health(channel)
            return True

        await eventually(serves, not_yet=(grpc.aio.AioRpcError,))


async def health(channel: object) -> None:
    stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
    await stub.Check(health_pb2.HealthCheckRequest(), timeout=5.0)


async def test_a_pair_that_does_not_fit_is_refused_and_the_old_one_stays(
    certificates: Certificates, foreign: Certificates
) -> None:
    files = certificates.issue("cache")
    assert files.key is not None
    client = certificates.source("router")
    async with serving(files) as address:
        other = foreign.issue("cache").key
        assert other is not None
        files.key.write_bytes(other.read_bytes())
        await ask(plain(address, client))
