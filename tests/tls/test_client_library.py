"""The client library over TLS: whom it believes, and what it says where it does not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from penstock.api.router.v1 import router_pb2 as pb
from penstock.client import BadRequest, Penstock, Unavailable
from penstock.client.handshake import tls_problem
from penstock.hosting.grpc_server import GrpcServer
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import unimplemented
from penstock.service.settings import ServiceSettings
from penstock.service.tls_files import TlsFiles

from tests.tls.conftest import Certificates

ROUTER = pb.DESCRIPTOR.services_by_name["RouterService"]


class Router:
    """Lists no models, and does nothing else."""

    def __getattr__(self, name: str) -> object:
        async def refuse(request: object, call: Call) -> object:
            raise unimplemented(f"{name} is not served here")

        return refuse

    async def ListModels(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        return pb.ListModelsResponse()


@contextlib.asynccontextmanager
async def serving(files: TlsFiles) -> AsyncIterator[str]:
    """A public port with this certificate, or in plaintext without one; gives its address."""
    settings = ServiceSettings(
        listen="127.0.0.1:0",
        tls_cert=files.certificate,
        tls_key=files.key,
        tls_ca=files.authorities,
    )
    endpoint = Endpoint(ROUTER, Router(), lambda _: Call(), public=True)
    server = GrpcServer("test", settings, [endpoint])
    await server.start()
    try:
        yield server.address
    finally:
        await server.stop(None)


async def told(address: str, ca: Path | None) -> str:
    """What a caller is told that cannot connect."""
    with pytest.raises(Unavailable) as failed:
        await list_models(address, ca)
    return str(failed.value)


async def list_models(address: str, ca: Path | None) -> None:
    async with Penstock(address, "psk-x", retries=0, ca=ca or "") as client:
        await client.list_models()


async def test_a_server_of_the_given_authority_is_believed(certificates: Certificates) -> None:
    files = certificates.issue("router")
    async with serving(files) as address:
        await list_models(address, files.authorities)
        assert await tls_problem(address, certificates.source("router")) == ""


@pytest.mark.threat("wrong authority: the client library")
async def test_a_server_of_another_authority_is_refused_with_the_reason(
    certificates: Certificates, foreign: Certificates
) -> None:
    async with serving(foreign.issue("router")) as address:
        said = await told(address, certificates.issue("client").authorities)
    assert "the server's certificate is refused: certificate signature failure" in said
    assert "check `ca`" in said
    assert address in said


@pytest.mark.threat("wrong host: the client library")
async def test_a_certificate_for_another_host_is_refused_with_the_reason(
    certificates: Certificates,
) -> None:
    files = certificates.issue("router", "elsewhere.example")
    async with serving(files) as address:
        said = await told(address, files.authorities)
    assert "certificate is refused: IP address mismatch" in said


@pytest.mark.threat("plaintext downgrade: the client library")
async def test_a_client_with_tls_sends_nothing_to_a_server_without(
    certificates: Certificates,
) -> None:
    authorities = certificates.issue("client").authorities
    async with serving(TlsFiles()) as address:
        assert "the server speaks no TLS" in await told(address, authorities)


async def test_a_client_without_tls_is_told_that_the_server_speaks_it(
    certificates: Certificates,
) -> None:
    async with serving(certificates.issue("router")) as address:
        assert "the server speaks TLS; name whom to believe with `ca`" in await told(address, None)


async def test_where_nobody_listens_nothing_is_said_of_tls(certificates: Certificates) -> None:
    files = certificates.issue("router")
    async with serving(files) as address:
        pass
    assert "TLS" not in await told(address, None)
    assert "certificate" not in await told(address, files.authorities)


async def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"ca: .*nobody\.pem: cannot be read"):
        Penstock("127.0.0.1:1", "psk-x", ca=tmp_path / "nobody.pem")
