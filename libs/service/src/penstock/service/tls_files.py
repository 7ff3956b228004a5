"""Certificate, key and authorities from files, read again when they change.

Whoever renews a certificate replaces files while the process runs (cert-manager swaps a folder's
link). Each new handshake asks for the material; a file whose size, time and inode are the same is
not read again. A pair that does not fit, for instance one of which only half is written, is refused
in one log line and the old one stays.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"
AUTHORITIES_FILE = "ca.crt"
"""Names in a folder that cert-manager fills."""
MAX_FILE_BYTES = 1 << 20
"""More than that is no certificate."""
Signature = tuple[tuple[int, int, int], ...]
"""Inode, size and time of each file."""


class BadTlsFiles(Exception):
    """The files cannot be used; the text names the file and says why. It holds no secret."""


@dataclass(frozen=True)
class TlsFiles:
    """Where the material is, as PEM.

    Attributes:
        certificate: the chain, the own certificate first; None for a client without one.
        key: the private key of it.
        authorities: whom the other side's certificate must come from; None for the system's.
    """

    certificate: Path | None = None
    key: Path | None = None
    authorities: Path | None = None

    @classmethod
    def of_folder(cls, folder: Path) -> TlsFiles:
        """The files of a folder that cert-manager fills."""
        return cls(folder / CERTIFICATE_FILE, folder / KEY_FILE, folder / AUTHORITIES_FILE)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files."""
        return tuple(path for path in (self.certificate, self.key, self.authorities) if path)


@dataclass(frozen=True)
class TlsMaterial:
    """What the files held; empty for none."""

    certificate: bytes = b""
    key: bytes = b""
    authorities: bytes = b""

    def __repr__(self) -> str:
        return "TlsMaterial(…)"


class TlsSource:
    """The material of some files, always the newest that can be used.

    Raises:
        BadTlsFiles: when it is made: the files cannot be used.
    """

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self._signature = _signature(files)
        self._refused: Signature | None = None
        self._material = read_material(files)
        self.generation = 0
        """Counts the changes of the material."""

    def current(self) -> TlsMaterial:
        """The material now."""
        try:
            signature = _signature(self.files)
        except BadTlsFiles as error:
            self._refuse((), error)
            return self._material
        if signature not in (self._signature, self._refused):
            self._read(signature)
        return self._material

    def _read(self, signature: Signature) -> None:
        try:
            material = read_material(self.files)
            if _signature(self.files) != signature:
                return  # written while it was read: the next handshake reads it again
        except BadTlsFiles as error:
            self._refuse(signature, error)
            return
        self._signature, self._material, self._refused = signature, material, None
        self.generation += 1
        log.info("read the certificate again: %s", self.files.certificate or self.files.authorities)

    def _refuse(self, signature: Signature, error: BadTlsFiles) -> None:
        """Say it once for each state of the files."""
        if self._refused != signature:
            log.error("new certificate refused, the old one stays: %s", error)
        self._refused = signature


def read_material(files: TlsFiles) -> TlsMaterial:
    """Read and check the files.

    Raises:
        BadTlsFiles: one cannot be read, is not PEM, or certificate and key are no pair.
    """
    material = TlsMaterial(*(_read(path) for path in _ordered(files)))
    server_context(files, demands_certificate=bool(files.authorities))
    return material


def server_context(files: TlsFiles, *, demands_certificate: bool = False) -> ssl.SSLContext:
    """The TLS of a server by these files, for HTTP: TLS 1.2 or newer.

    Args:
        files: the server's own certificate, and whom clients' must come from.
        demands_certificate: whether a client without a certificate is refused.

    Raises:
        BadTlsFiles: the files cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, files)
    if demands_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """The TLS of a client by these files, for HTTP: TLS 1.2 or newer, name and chain verified.

    Raises:
        BadTlsFiles: the files cannot be used.
    """
    context = ssl.create_default_context() if files.authorities is None else _bare_client()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, files)
    return context


def reloading_context(source: TlsSource, *, demands_certificate: bool = False) -> ssl.SSLContext:
    """The TLS of a server whose every new connection gets the newest material: the context of a
    connection is replaced while the client says hello.
    """
    made: list[tuple[int, ssl.SSLContext]] = []

    def newest() -> ssl.SSLContext:
        source.current()
        if not made or made[-1][0] != source.generation:
            context = server_context(source.files, demands_certificate=demands_certificate)
            made[:] = [(source.generation, context)]
        return made[-1][1]

    def replace(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        connection.context = newest()

    first = server_context(source.files, demands_certificate=demands_certificate)
    first.sni_callback = replace
    return first


def _bare_client() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    if files.certificate is not None:
        _loaded(lambda: context.load_cert_chain(*_pair(files)), files.certificate)
    if files.authorities is not None:
        _loaded(lambda: context.load_verify_locations(files.authorities), files.authorities)


def _pair(files: TlsFiles) -> tuple[Path, Path]:
    if files.certificate is None or files.key is None:
        raise BadTlsFiles("a certificate needs its key: name both files")
    return files.certificate, files.key


def _loaded(load: Callable[[], None], path: Path) -> None:
    try:
        load()
    except ssl.SSLError as error:
        raise BadTlsFiles(f"{path}: cannot be used ({error.reason or 'not PEM'})") from None
    except OSError as error:
        raise BadTlsFiles(f"{path}: cannot be read ({error.strerror})") from None


def _ordered(files: TlsFiles) -> tuple[Path | None, ...]:
    return files.certificate, files.key, files.authorities


def _read(path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadTlsFiles(f"{path}: is larger than {MAX_FILE_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise BadTlsFiles(f"{path}: cannot be read ({error.strerror})") from None


def _signature(files: TlsFiles) -> Signature:
    try:
        stats = [path.stat() for path in files.paths]
    except OSError as error:
        raise BadTlsFiles(f"{error.filename}: cannot be read ({error.strerror})") from None
    return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in stats)
