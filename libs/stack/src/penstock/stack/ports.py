"""The addresses of the processes of a stack: on the documented ports, or on free ones."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.service.free_ports import LOOPBACK, can_listen, free_addresses
from penstock.service.program import CannotStart

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
    "registry": 7087,
    "console": 7080,
    "generate": 7085,
    "edge": 7086,
    "router-keys": 7088,
    "telemetry": 4317,
    "metrics": 9464,
    "otlp-http": 4318,
}
"""Process to port; `registry`, `router-keys`, `limiter-admin`, `metrics` and `otlp-http` are
further ports of router, limiter and telemetry.

A test compares them with deploy/services.yaml.
"""


def documented() -> dict[str, str]:
    """The addresses of `make up`: each process on its documented port."""
    return {name: f"{LOOPBACK}:{port}" for name, port in PORTS.items()}


def free() -> dict[str, str]:
    """Addresses on ports of this process's own, for the same processes as `documented`.

    Raises:
        CannotStart: there are no such ports.
    """
    try:
        return dict(zip(PORTS, free_addresses(len(PORTS)), strict=True))
    except OSError as error:
        raise CannotStart(error.strerror) from None


def in_use(addresses: Mapping[str, str]) -> dict[str, str]:
    """Those of the addresses, by name, on which another process listens."""
    return {name: address for name, address in addresses.items() if not _is_free(address)}


def _is_free(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return can_listen(host, int(port))
