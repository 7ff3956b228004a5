"""Where each service answers: the documented ports, or free ones for a stack that must not collide
with another.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

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
    "kserve-1": 7081,
    "kserve-2": 7082,
    "telemetry": 4317,
    "metrics": 9464,
}


def documented() -> dict[str, str]:
    """The addresses of `make up`."""
    return {name: f"127.0.0.1:{port}" for name, port in PORTS.items()}


def free() -> dict[str, str]:
    """Addresses on ports that are free now.

    All are held at once while choosing, so no two are the same.
    """
    holders = {name: socket.socket() for name in PORTS}
    try:
        for holder in holders.values():
            holder.bind(("127.0.0.1", 0))
        return {name: f"127.0.0.1:{holder.getsockname()[1]}" for name, holder in holders.items()}
    finally:
        for holder in holders.values():
            holder.close()


def taken(addresses: Mapping[str, str]) -> dict[str, str]:
    """Those of the addresses that somebody listens on already, by name."""
    found = {}
    for name, address in addresses.items():
        host, _, port = address.rpartition(":")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, int(port)))
            except OSError:
                found[name] = address
    return found
