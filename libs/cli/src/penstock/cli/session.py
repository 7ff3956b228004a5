"""What every command gets: the target, the output, and connections that are closed afterwards."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import click
from google.protobuf.descriptor import ServiceDescriptor
from penstock.cli.output import Output
from penstock.cli.target import Target
from penstock.client import BadRequest, PenstockSync
from penstock.client.errors import from_fault_at
from penstock.client.handshake import explained
from penstock.client.run import Run, new_run
from penstock.client.tls import tls_of
from penstock.rpc.call import NOBODY, Call, Principal
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.service.tls_files import TlsSource

ANSWER_TIMEOUT_S = 10.0
"""Seconds for calls that need no model."""


@dataclass(frozen=True)
class Session:
    """One run of the command.

    Attributes:
        target: where Penstock is.
        output: where results go.
        timeout_s: seconds for a call of a model; 0: the command's own default.
    """

    target: Target
    output: Output
    timeout_s: float = 0.0

    def client(self) -> PenstockSync:
        """A client of the router; close it.

        Raises:
            click.UsageError: the address or the key cannot be one.
        """
        try:
            target = self.target
            return PenstockSync(
                target.address, target.key, ca=target.ca, cert=target.cert, key_file=target.key_file
            )
        except BadRequest as error:
            raise click.UsageError(f"--{error.message}") from None

    def tls(self) -> TlsSource | None:
        """The TLS of every connection; None for plaintext.

        Raises:
            click.UsageError: the files cannot be used.
        """
        try:
            return tls_of(self.target.ca, self.target.cert, self.target.key_file)
        except BadRequest as error:
            raise click.UsageError(f"--{error.message}") from None

    def run(self, default_timeout_s: float, step: str = "") -> Run:
        """The run of a command's calls."""
        return new_run(step, "high", self.timeout_s or default_timeout_s)

    @contextlib.asynccontextmanager
    async def peer(
        self, address: str, service: ServiceDescriptor, *, operator: bool = False
    ) -> AsyncIterator[UnaryPeer]:
        """A service behind the router, by the internal token; `operator`: by an operator's secret.

        Raises:
            PenstockError: a call in the block failed.
        """
        secret = self.target.admin_token
        metadata = (("authorization", f"Bearer {secret}"),) if operator else ()
        token = "" if operator else self.target.token
        channel = open_channel(address, self.tls())
        peer = UnaryPeer(channel, service, token=token, metadata=metadata)
        try:
            yield peer
        except Fault as fault:
            raise from_fault_at(address, await explained(fault, address, self.tls())) from None
        finally:
            await peer.close()

    def call(self, organisation: str = "", team: str = "", user: str = "") -> Call:
        """The context of a call on behalf of a tenant, or of nobody."""
        principal = Principal(organisation, team, user) if organisation else NOBODY
        timeout_s = self.timeout_s or ANSWER_TIMEOUT_S
        deadline_s = time.monotonic() + timeout_s if math.isfinite(timeout_s) else math.inf
        return Call(principal=principal, deadline_s=deadline_s)
