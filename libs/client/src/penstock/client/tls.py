"""How a client speaks TLS: whom it believes, and a certificate of its own where it has one."""

from __future__ import annotations

from pathlib import Path

from penstock.client.errors import bad_request
from penstock.service.tls_files import BadTlsFiles, TlsFiles, TlsSource

SYSTEM = "system"
"""As `ca`: the authorities that the system believes."""


def tls_of(
    ca: str | Path = "", cert: str | Path = "", key_file: str | Path = ""
) -> TlsSource | None:
    """The TLS of a connection; None, for plaintext, where nothing is given.

    Args:
        ca: PEM file of the authorities that the server's certificate must come from, or `system`.
        cert: PEM file of an own certificate, for servers that ask for one.
        key_file: PEM file of its private key.

    Raises:
        BadRequest: the files cannot be used.
    """
    if not (ca or cert or key_file):
        return None
    if bool(cert) != bool(key_file):
        raise bad_request(
            "cert", "a certificate and its key belong together; give cert and key_file"
        )
    authorities = None if str(ca) in ("", SYSTEM) else Path(ca)
    certificate, key = (Path(cert), Path(key_file)) if cert else (None, None)
    try:
        return TlsSource(TlsFiles(certificate, key, authorities))
    except BadTlsFiles as error:
        raise bad_request("ca", str(error)) from None
