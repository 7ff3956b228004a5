"""An authority for development and tests: a root, and a certificate for each service.

Its key lies in a file, so it is for no more than one machine. In production cert-manager or another
authority issues the same names.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from penstock.service.tls_files import AUTHORITIES_FILE, CERTIFICATE_FILE, KEY_FILE, TlsFiles

AUTHORITY_KEY_FILE = "ca.key"
VALID_DAYS = 90
LEEWAY = datetime.timedelta(minutes=5)
"""Certificates begin to be valid so long before now: clocks differ."""
HERE = ("localhost", "127.0.0.1", "::1")
"""Where services on this machine are reached."""


@dataclass(frozen=True)
class Authority:
    """Who issues certificates."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls, now: datetime.datetime) -> Authority:
        """An authority with a new key, valid from now on."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name("Penstock development authority")
        builder = _builder(subject, subject, key, now, VALID_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        return cls(builder.add_extension(usage, True).sign(key, hashes.SHA256()), key)

    @classmethod
    def read(cls, folder: Path) -> Authority:
        """The authority that `write` has written.

        Raises:
            OSError: it is not there.
            ValueError: the files are not those of an authority.
        """
        key = serialization.load_pem_private_key((folder / AUTHORITY_KEY_FILE).read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{folder / AUTHORITY_KEY_FILE}: is not an elliptic curve's key")
        certificate = (folder / AUTHORITIES_FILE).read_bytes()
        return cls(x509.load_pem_x509_certificate(certificate), key)

    def write(self, folder: Path) -> None:
        """Write certificate and key, which only their owner can read."""
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / AUTHORITIES_FILE, self.pem())
        _write(folder / AUTHORITY_KEY_FILE, _key_pem(self.key))

    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        folder: Path,
        names: Sequence[str],
        now: datetime.datetime,
        valid_days: int = VALID_DAYS,
    ) -> TlsFiles:
        """Write a certificate with a new key, for a server and a client of these names.

        Args:
            folder: gets tls.crt, tls.key and ca.crt, as cert-manager names them.
            names: DNS names and IP addresses; the first is the common name.
            now: when it begins to be valid.
            valid_days: how long; negative for one that has expired.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(names[0]), self.certificate.subject, key, now, valid_days)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            builder.add_extension(
                x509.SubjectAlternativeName([_san(each) for each in names]), False
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .add_extension(x509.ExtendedKeyUsage(usages), False)
        )
        certificate = builder.sign(self.key, hashes.SHA256())
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / KEY_FILE, _key_pem(key))
        _write(folder / CERTIFICATE_FILE, certificate.public_bytes(serialization.Encoding.PEM))
        _write(folder / AUTHORITIES_FILE, self.pem())
        return TlsFiles.of_folder(folder)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    valid_days: int,
) -> x509.CertificateBuilder:
    ends = now + datetime.timedelta(days=valid_days)
    begins = min(now, ends - datetime.timedelta(days=1)) - LEEWAY
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes) -> None:
    """Replace a file at once: a reader sees the old content or the new."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
    beside.replace(path)
