"""What the services of a stack on this machine know each other by.

Each service gets a file of secrets of its own, and with TLS a certificate of a development
authority. The files lie in the stack's home folder and only their owner can read them.
"""

from __future__ import annotations

import datetime
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from penstock.cli.dev_authority import HERE, Authority
from penstock.rpc.callers import CALLS, INSTANCE, OPERATOR, REGISTERS, SERVED_BY, callers_of
from penstock.service.program import CannotStart
from penstock.service.tls_files import BadTlsFiles, TlsFiles, TlsSource

TLS_FOLDER = "tls"
TOKENS_FOLDER = "service-tokens"
CACHE_SECRET_FILE = "cache-secret"
STAND_IN = "stand-in"
"""Certificate of instances that the demo serves and registers itself."""


@dataclass(frozen=True)
class Identities:
    """Where the files of each service are.

    Attributes:
        tokens: folder with a file for each service.
        cache_secret: keys the cache's entries; kept, so that a restart finds them.
        certificates: folder with a folder for each service; None for plaintext.
    """

    tokens: Path
    cache_secret: str
    certificates: Path | None = None

    def settings_of(self, service: str) -> dict[str, str]:
        """What a service is told of its own identity."""
        if self.certificates is not None:
            return {"tls_dir": str(self.certificates / service)}
        return {"service_tokens_file": str(self.tokens_file(service))}

    def tokens_file(self, service: str) -> Path:
        """The secrets of a service."""
        return self.tokens / f"{service}.yaml"

    def tls(self, name: str = OPERATOR) -> TlsSource | None:
        """The certificate of an operator, or of another name; None for plaintext.

        Raises:
            CannotStart: it cannot be used.
        """
        if self.certificates is None:
            return None
        try:
            return TlsSource(TlsFiles.of_folder(self.certificates / name))
        except BadTlsFiles as error:
            raise CannotStart(str(error)) from None


def write_identities(home: Path, operator_token: str, *, tls: bool) -> Identities:
    """Make the files of every service of a stack.

    Args:
        home: the stack's folder.
        operator_token: what an operator's tools send.
        tls: whether services get certificates.

    Raises:
        CannotStart: the folder cannot be written.
    """
    try:
        tokens = home / TOKENS_FOLDER
        tokens.mkdir(parents=True, exist_ok=True)
        _write_tokens(tokens, operator_token)
        certificates = home / TLS_FOLDER if tls else None
        if certificates is not None:
            write_certificates(certificates, datetime.datetime.now(datetime.UTC))
        return Identities(tokens, _kept_secret(home / CACHE_SECRET_FILE), certificates)
    except OSError as error:
        raise CannotStart(
            f"{error.filename}: {error.strerror}; name a writable folder with PENSTOCK_HOME"
        ) from None


def write_certificates(folder: Path, now: datetime.datetime) -> None:
    """A development authority, unless there is one that is still valid for a month, and a
    certificate for each service, an operator and the demo's own instances.
    """
    authority = _authority(folder, now)
    for service in CALLS:
        roles = (INSTANCE,) if service in REGISTERS else ()
        authority.issue(folder / service, (service, *roles, *HERE), now)
    authority.issue(folder / OPERATOR, (OPERATOR, *HERE), now)
    authority.issue(folder / STAND_IN, (STAND_IN, OPERATOR, INSTANCE, *HERE), now)


def _authority(folder: Path, now: datetime.datetime) -> Authority:
    try:
        authority = Authority.read(folder)
        if authority.certificate.not_valid_after_utc > now + datetime.timedelta(days=30):
            return authority
    except (OSError, ValueError):
        pass
    authority = Authority.new(now)
    authority.write(folder)
    return authority


def _write_tokens(folder: Path, operator_token: str) -> None:
    """A secret for each pair of caller and callee."""
    send: dict[str, dict[str, str]] = {service: {} for service in CALLS}
    accept: dict[str, dict[str, list[str]]] = {}
    for rpc_service, callee in SERVED_BY.items():
        pairs = {
            caller: send[caller].setdefault(callee, secrets.token_hex(32))
            for caller in sorted(callers_of(rpc_service) - {OPERATOR})
        }
        accepted = {caller: [secret] for caller, secret in pairs.items()}
        accept[callee] = {OPERATOR: [operator_token], **accepted}
    for service in CALLS:
        served = INSTANCE if service in REGISTERS else service
        content = {"send": send[service], "accept": accept.get(served, {})}
        _write_private(folder / f"{service}.yaml", json.dumps(content))  # JSON is YAML


def _kept_secret(path: Path) -> str:
    if not path.exists():
        _write_private(path, secrets.token_hex(32))
    return path.read_text(encoding="utf-8")


def _write_private(path: Path, content: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(content)
