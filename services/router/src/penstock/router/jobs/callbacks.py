"""Telling an ended job to its caller's address: https only, listed hosts only, never into our own
network, signed, no redirects.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from penstock.service.public_addresses import is_public, resolve

SIGNATURE = "penstock-signature"
TIMEOUT_S = 10.0


def refused_because(url: str, hosts: Collection[str]) -> str:
    """Why an address may not be called; empty when it may. Plain: the name is not resolved here."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not an address"
    if parts.scheme != "https":
        return "must begin with https://"
    if parts.username or parts.password:
        return "must not carry a user or password"
    if not parts.hostname or parts.hostname not in hosts:
        return "names a host that is not on the allow-list"
    if any(ord(sign) <= 32 or ord(sign) == 127 for sign in url) or not url.isascii():
        return "must be plain ASCII without blanks"
    return "" if port in (None, 443) else "must use port 443"


def secret_of(callback_secret: str, organisation: str) -> str:
    """The secret by which callbacks to one organisation are signed: HMAC-SHA256 of its name under
    the deployment's secret, in hexadecimal. So no organisation can sign for another.
    """
    return hmac.new(callback_secret.encode(), organisation.encode(), hashlib.sha256).hexdigest()


def sign(secret: str, at_unix_s: int, body: bytes) -> str:
    """`t=SECONDS,v1=HMAC-SHA256(secret, "SECONDS." + body)`: the receiver checks both."""
    digest = hmac.new(secret.encode(), f"{at_unix_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_unix_s},v1={digest}"


@dataclass(frozen=True)
class HttpsPost:
    """Sends a callback.

    What a test changes: the port, who resolves, which addresses may be called, whom TLS trusts.
    """

    port: int = 443
    resolve: Callable[[str, int], Awaitable[list[str]]] = resolve
    may_call: Callable[[str], bool] = is_public
    tls: Callable[[], ssl.SSLContext] = ssl.create_default_context

    async def __call__(self, url: str, body: bytes, signature: str) -> int:
        """Send once and give the HTTP status.

        The name is resolved once and that very address is called.

        Raises:
            OSError: no public address, no connection, no answer in time, or no HTTP.
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: "
            f"application/json\r\nContent-Length: {len(body)}\r\n"
            f"{SIGNATURE}: {signature}\r\nUser-Agent: penstock\r\nConnection: close\r\n\r\n"
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._exchange(host, head.encode("ascii") + body)
        except OSError:
            raise  # a certificate's fault is a ValueError too
        except ValueError as error:  # a name that cannot be one, or a line without an end
            raise OSError(f"{host} did not answer with HTTP") from error

    async def _exchange(self, host: str, request: bytes) -> int:
        addresses = await self.resolve(host, self.port)
        if not addresses or not all(self.may_call(address) for address in addresses):
            raise OSError(f"{host} does not resolve to public addresses")
        reader, writer = await asyncio.open_connection(
            addresses[0], self.port, ssl=self.tls(), server_hostname=host
        )
        try:
            writer.write(request)
            await writer.drain()
            status = (await reader.readline()).split(b" ", 2)
            if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or not status[1].isdigit():
                raise OSError(f"{host} did not answer with HTTP")
            return int(status[1])
        finally:
            writer.close()
