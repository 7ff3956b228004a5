"""The public keys by which an issuer's tokens are verified (JWKS, RFC 7517): read from a file, or
fetched from an https address that lies in the public internet.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h11
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from penstock.service.public_addresses import is_public, resolve
from penstock.service.purity import pure

MAX_BYTES = 256 << 10
MAX_KEYS = 64
MIN_RSA_BITS = 2_048
TIMEOUT_S = 5.0

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
KeySet = Mapping[str, PublicKey]
"""Public keys by `kid`; a key without one stands under the empty name."""


class BadKeySet(ValueError):
    """What was read is no set of public keys; says why."""


@pure
def parse(text: bytes) -> KeySet:
    """The signature keys of a JWKS document; secrets and keys for encryption are left out.

    Raises:
        BadKeySet: it is not one, has too many keys, or none that can be used.
    """
    try:
        rows = json.loads(text)["keys"]
        usable = [row for row in rows if row.get("use", "sig") == "sig" and row["kty"] != "oct"]
        keys = {str(row.get("kid", "")): jwt.PyJWK.from_dict(row).key for row in usable}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, jwt.PyJWTError):
        raise BadKeySet("is no JWKS document") from None
    public = {kid: key for kid, key in keys.items() if is_acceptable(key)}
    if not 0 < len(public) <= MAX_KEYS:
        raise BadKeySet(f"must have 1 to {MAX_KEYS} public keys for signatures")
    return public


@pure
def is_acceptable(key: Any) -> bool:
    """Whether a key is public and, for RSA, long enough."""
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= MIN_RSA_BITS
    return isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey)


def read_file(path: Path) -> KeySet:
    """The keys of a file.

    Raises:
        BadKeySet: it cannot be read, or is no JWKS document.
    """
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise BadKeySet(f"cannot be read ({error.strerror})") from None


@dataclass(frozen=True)
class HttpsGet:
    """Reads a document from an https address. The name is resolved once, that very address is
    called, and no redirect is followed.

    What a test changes: who resolves, which addresses may be called, whom TLS trusts.
    """

    resolve: Callable[[str, int], Awaitable[list[str]]] = resolve
    may_call: Callable[[str], bool] = is_public
    tls: Callable[[], ssl.SSLContext] = ssl.create_default_context

    async def __call__(self, url: str) -> bytes:
        """The document.

        Raises:
            OSError: no public address, no connection, no answer in time, or another status than
                200.
        """
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._read(url)
        except (ValueError, h11.ProtocolError) as error:
            raise OSError(f"{url} did not answer with HTTP") from error

    async def _read(self, url: str) -> bytes:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        if parts.scheme != "https":
            raise OSError(f"{url} must begin with https://")
        addresses = await self.resolve(host, port)
        if not addresses or not all(self.may_call(address) for address in addresses):
            raise OSError(f"{host} does not resolve to public addresses")
        reader, writer = await asyncio.open_connection(
            addresses[0], port, ssl=self.tls(), server_hostname=host
        )
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            return await _exchange(reader, writer, host, target)
        finally:
            writer.close()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, target: str
) -> bytes:
    """One GET; raises OSError for another status than 200 or a document that is too large."""
    http = h11.Connection(h11.CLIENT)
    headers = [("Host", host), ("Accept", "application/json"), ("Connection", "close")]
    writer.write(http.send(h11.Request(method="GET", target=target, headers=headers)) or b"")
    writer.write(http.send(h11.EndOfMessage()) or b"")
    await writer.drain()
    body = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(65_536))
        elif isinstance(event, h11.Response) and event.status_code != 200:
            raise OSError(f"{host} answered with status {event.status_code}")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BYTES:
                raise OSError(f"{host} sent more than {MAX_BYTES} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return bytes(body)
