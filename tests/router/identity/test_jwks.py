"""Sets of public keys: what is one, and which addresses are asked for it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from penstock.router.identity.jwks import BadKeySet, HttpsGet, parse, read_file
from penstock.router.settings import TokenIssuer
from pydantic import ValidationError


def rsa_jwk(bits: int = 2048) -> dict[str, Any]:
    key = rsa.generate_private_key(65537, bits).public_key()
    return {**RSAAlgorithm.to_jwk(key, as_dict=True), "kid": f"k{bits}"}


GOOD = rsa_jwk()


def document(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


def test_keys_stand_under_their_names() -> None:
    assert list(parse(document(GOOD))) == ["k2048"]


@pytest.mark.threat("weak or secret key in a key set")
def test_secrets_and_short_keys_are_left_out() -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "s"}
    assert list(parse(document(secret, rsa_jwk(1024), GOOD))) == ["k2048"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        document(),
        document({"kty": "RSA"}),
        document("x"),
        document({"kty": "oct", "k": "c2VjcmV0"}),
        b"[" * 100_000,
    ],
)
def test_what_is_no_key_set_is_refused(text: bytes) -> None:
    with pytest.raises(BadKeySet):
        parse(text)


def test_a_file_that_is_not_there_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(BadKeySet, match="cannot be read"):
        read_file(tmp_path / "none.json")


@pytest.mark.threat("SSRF by JWKS address")
@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["10.0.0.7"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["fd00::1"],
        ["93.184.216.34", "192.168.1.1"],
        [],
    ],
)
async def test_a_name_that_leads_into_our_network_is_not_asked(addresses: list[str]) -> None:
    async def resolve(_: str, __: int) -> list[str]:
        return addresses

    with pytest.raises(OSError, match="public"):
        await HttpsGet(resolve)("https://issuer.example/keys")


@pytest.mark.threat("SSRF by scheme of a JWKS address")
@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/keys",
        "file:///etc/passwd",
        "https://user@issuer.example/",
        "https://issuer.example\r\nX: y/",
    ],
)
def test_only_plain_https_addresses_can_be_configured(url: str) -> None:
    with pytest.raises(ValidationError):
        TokenIssuer(issuer="i", audience="a", jwks_url=url)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",), b"{}"),
        ((b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n",), "status 302"),
        ((b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 300_000), "more than"),
        ((b"SSH-2.0\r\n",), "did not answer with HTTP"),
    ],
)
@pytest.mark.threat("redirect or flood by a JWKS address")
async def test_a_document_is_read_once_without_redirects(
    answer: Sequence[bytes], outcome: bytes | str
) -> None:
    authority = trustme.CA()
    server_tls, client_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), None
    authority.issue_cert("issuer.example").configure_cert(server_tls)
    client_tls = ssl.create_default_context()
    authority.configure_trust(client_tls)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.writelines(answer)
        writer.close()

    async def resolve(_: str, __: int) -> list[str]:
        return ["127.0.0.1"]

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_tls)
    port = server.sockets[0].getsockname()[1]
    get = HttpsGet(resolve, lambda _: True, lambda: client_tls)
    async with server:
        url = f"https://issuer.example:{port}/keys"
        if isinstance(outcome, bytes):
            assert await get(url) == outcome
            return
        with pytest.raises(OSError, match=outcome):
            await get(url)
