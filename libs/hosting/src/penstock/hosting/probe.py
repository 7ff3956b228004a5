"""`python -m penstock.hosting.probe`: exits 0 when the service on PENSTOCK_LISTEN serves.

For container engines that probe by a command.
"""

from __future__ import annotations

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from penstock.rpc.credentials import channel_credentials
from penstock.rpc.peers.stream import NO_PROXY
from penstock.service.settings import ServiceSettings
from penstock.service.tls_files import TlsSource

PROBE_S = 3.0


def reachable_by(listen: str) -> str:
    """The address at which this machine reaches what listens so: a wildcard is no address to
    call.
    """
    for everything in ("0.0.0.0:", "[::]:"):
        if listen.startswith(everything):
            return f"127.0.0.1:{listen.removeprefix(everything)}"
    return listen


def serves(listen: str, tls: TlsSource | None = None) -> bool:
    """True when grpc.health.v1 there says SERVING; `tls` is the service's own certificate."""
    with _channel(reachable_by(listen), tls) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=PROBE_S
            )
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _channel(address: str, tls: TlsSource | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(address, options=(NO_PROXY,))
    return grpc.secure_channel(address, channel_credentials(tls.current()), options=(NO_PROXY,))


if __name__ == "__main__":
    sys.exit(0 if serves(os.environ.get("PENSTOCK_LISTEN", ""), ServiceSettings().tls) else 1)
