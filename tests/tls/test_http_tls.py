"""TLS at an HTTP port."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from penstock.hosting.http_port import HttpPort
from penstock.service.tls_files import TlsFiles, TlsSource, client_context

from tests.tls.conftest import Certificates


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers every request with an empty 200."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})


@contextlib.asynccontextmanager
async def serving(source: TlsSource, *, mutual: bool = False) -> AsyncIterator[str]:
    port = HttpPort("127.0.0.1:0", app, tls=source, demands_certificate=mutual)
    await port.start()
    try:
        yield port.address
    finally:
        await port.stop()


async def status(url: str, files: TlsFiles) -> int:
    async with httpx.AsyncClient(verify=client_context(files), trust_env=False) as client:
        return (await client.get(url)).status_code


async def test_an_http_port_speaks_tls(certificates: Certificates) -> None:
    source = certificates.source("telemetry")
    async with serving(source) as address:
        assert await status(f"https://{address}/", TlsFiles(authorities=source.files.authorities))


@pytest.mark.threat("plaintext downgrade over HTTP")
async def test_an_http_port_with_tls_takes_no_plaintext(certificates: Certificates) -> None:
    async with serving(certificates.source("telemetry")) as address:
        with pytest.raises(httpx.TransportError):
            await status(f"http://{address}/", TlsFiles())


@pytest.mark.threat("no certificate at an HTTP port for services")
async def test_a_port_for_services_asks_for_a_certificate(certificates: Certificates) -> None:
    source = certificates.source("telemetry")
    async with serving(source, mutual=True) as address:
        with pytest.raises(httpx.TransportError):
            await status(f"https://{address}/", TlsFiles(authorities=source.files.authorities))
        assert await status(f"https://{address}/", certificates.issue("router")) == 200


async def test_new_connections_use_a_renewed_certificate(certificates: Certificates) -> None:
    source = certificates.source("telemetry")
    believed = TlsFiles(authorities=source.files.authorities)
    async with serving(source) as address:
        assert await status(f"https://{address}/", believed) == 200
        certificates.issue("telemetry", "elsewhere.example")
        with pytest.raises(httpx.ConnectError):
            await status(f"https://{address}/", believed)
