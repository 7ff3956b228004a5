"""The addresses of the processes of a stack: on the documented ports, or on free ones.

A stack on free ports cannot collide with another one on the same machine.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

LOOPBACK = "127.0.0.1"
PORTS: Mapping[str, int] = {
    "router": 7070,
    "cache": 7071,
    "limiter": 7072,
    "batcher": 7073,
    "inference-1": 7074,
    "inference-2": 7075,
    "scaler": 7076,
    "inference-upstream": 7077,
    "limiter-admin": 7078,
    "console": 7080,
    "generate": 7085,
    "edge": 7086,
    "telemetry": 4317,
    "metrics": 9464,
    "otlp-http": 4318,
}
"""Process to port; `limiter-admin`, `metrics` and `otlp-http` are further ports of limiter and
telemetry.

A test compares them with deploy/services.yaml.
"""


def documented() -> dict[str, str]:
    """The addresses of `make up`: each process on its documented port."""
    return {name: f"{LOOPBACK}:{port}" for name, port in PORTS.items()}


def free() -> dict[str, str]:
    """Addresses on ports that are free now, for the same processes as `documented`.

    All ports are bound at the same time while they are chosen, so no two are the same.
    """
    sockets = {name: socket.socket() for name in PORTS}
    try:
        for bound in sockets.values():
            bound.bind((LOOPBACK, 0))
        return {name: f"{LOOPBACK}:{bound.getsockname()[1]}" for name, bound in sockets.items()}
    finally:
        for bound in sockets.values():
            bound.close()


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as bound:
        bound.bind((LOOPBACK, 0))
        return int(bound.getsockname()[1])


def in_use(addresses: Mapping[str, str]) -> dict[str, str]:
    """Those of the addresses, by name, on which another process listens."""
    return {name: address for name, address in addresses.items() if not _can_bind(address)}


def _can_bind(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return False
    return True
