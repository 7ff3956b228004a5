"""Why no connection can be made: gRPC says that a server is unavailable, whatever the cause, so a
client that was refused one tries a TLS handshake of its own and says what came of it.
"""

from __future__ import annotations

import asyncio
import ssl

from penstock.rpc.errors import Fault, unavailable
from penstock.rpc.reasons import Reason
from penstock.service.tls_files import BadTlsFiles, TlsSource, client_context

HANDSHAKE_S = 1.0


async def explained(fault: Fault, address: str, tls: TlsSource | None) -> Fault:
    """The fault, with what is wrong with the TLS between both sides where that is found.

    Args:
        fault: of a call that failed for good.
        address: of the server.
        tls: how it was called; None: in plaintext.
    """
    if fault.reason is not Reason.UNAVAILABLE or address.startswith("unix:"):
        return fault
    problem = await tls_problem(address, tls)
    return unavailable(problem, retry_after_s=fault.retry_after_s) if problem else fault


async def tls_problem(address: str, tls: TlsSource | None) -> str:
    """What is wrong with the TLS, in words for a caller; empty where nothing is found."""
    try:
        await _shake_hands(address, _anybody() if tls is None else client_context(tls.files))
    except ssl.SSLCertVerificationError as error:
        return (
            f"the server's certificate is refused: {error.verify_message}; check `ca`, and that "
            "the certificate is for this address"
        )
    except ssl.SSLError:
        return (
            "" if tls is None else "the server speaks no TLS; leave out `ca`, or call its TLS port"
        )
    except (OSError, TimeoutError, ValueError, BadTlsFiles):
        return ""
    return "the server speaks TLS; name whom to believe with `ca`" if tls is None else ""


def _anybody() -> ssl.SSLContext:
    """Believes every server: nothing is sent to it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _shake_hands(address: str, context: ssl.SSLContext) -> None:
    """Connect over TLS, and hang up.

    Raises:
        OSError: no connection; as ssl.SSLError where the handshake failed.
        TimeoutError: the server does not answer.
        ValueError: the address has no port.
    """
    host, _, port = address.rpartition(":")
    context.set_alpn_protocols(["h2"])
    async with asyncio.timeout(HANDSHAKE_S):
        host = host.strip("[]")
        _, writer = await asyncio.open_connection(
            host, int(port), ssl=context, server_hostname=host
        )
        writer.transport.abort()
