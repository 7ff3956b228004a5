"""Telling an ended job to its caller's address: https only, listed hosts only, never into our own network, signed, no redirects."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import socket
import ssl
from collections.abc import Collection
from urllib.parse import urlsplit

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


def is_public(address: str) -> bool:
    """False for private, loopback, link-local, multicast and reserved addresses, also where IPv6 wraps an IPv4 one."""
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    return found.is_global and not found.is_multicast and (inner is None or is_public(str(inner)))


def sign(secret: str, at_unix_s: int, body: bytes) -> str:
    """`t=SECONDS,v1=HMAC-SHA256(secret, "SECONDS." + body)`: the receiver checks both."""
    digest = hmac.new(secret.encode(), f"{at_unix_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_unix_s},v1={digest}"


async def post(url: str, body: bytes, signature: str) -> int:
    """Send once and give the HTTP status. The name is resolved once and that very address is called.

    Raises:
        OSError: no public address, no connection, no answer in time, or no HTTP.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    async with asyncio.timeout(TIMEOUT_S):
        found = await asyncio.get_running_loop().getaddrinfo(host, 443, type=socket.SOCK_STREAM)
        addresses = [str(item[4][0]) for item in found]
        if not addresses or not all(is_public(address) for address in addresses):
            raise OSError(f"{host} does not resolve to public addresses")
        context = ssl.create_default_context()
        reader, writer = await asyncio.open_connection(addresses[0], 443, ssl=context, server_hostname=host)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            head = (
                f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                f"{SIGNATURE}: {signature}\r\nUser-Agent: penstock\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode("ascii") + body)
            await writer.drain()
            status = (await reader.readline()).split(b" ", 2)
            if len(status) < 2 or not status[1].isdigit():
                raise OSError(f"{host} did not answer with HTTP")
            return int(status[1])
        finally:
            writer.close()
