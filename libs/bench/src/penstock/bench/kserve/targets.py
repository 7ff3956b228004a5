"""What is asked: an instance with the default model, and a router with limiter, cache and batcher
before it, all in this process and on real ports.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from penstock.batcher.build import ASSEMBLY as BATCHER
from penstock.batcher.settings import BatcherSettings
from penstock.cache.build import ASSEMBLY as CACHE
from penstock.cache.settings import CacheSettings
from penstock.hosting.cell import Member, serving_together
from penstock.inference_onnx_quantized.build import ASSEMBLY as INSTANCE
from penstock.inference_onnx_quantized.settings import InferenceSettings
from penstock.limiter.build import ASSEMBLY as LIMITER
from penstock.limiter.settings import LimiterSettings
from penstock.router.build import ASSEMBLY as ROUTER
from penstock.router.settings import RouterSettings
from penstock.service.free_ports import free_addresses
from penstock.service.store import embedded_store
from penstock.stack.configuration import api_key

MODEL = "all-MiniLM-L6-v2"
TENANT, KEY, TOKEN = "conformance", "psk-conformance", "the-token-of-the-conformance-run"
RATE = {"name": "wide", "kind": "rate", "counts": "requests", "limit": 10**6, "window": "minute"}


@dataclass(frozen=True)
class Target:
    """A service that speaks the protocol, and how it is reached."""

    name: str
    grpc: str
    """host:port of gRPC."""
    http: str
    """host:port of HTTP."""
    headers: dict[str, str]
    """Credentials."""

    @property
    def is_router(self) -> bool:
        """Whether calls are admitted, looked up and routed there."""
        return self.name == "router"


@contextlib.asynccontextmanager
async def serving_targets(home: Path) -> AsyncIterator[tuple[Target, Target]]:
    """The instance and the router, once started; the instance may not have registered yet.

    Args:
        home: folder with the built models.
    """
    with tempfile.TemporaryDirectory(prefix="ps-kserve-") as name:
        folder = Path(name)
        async with embedded_store(folder / "store") as url:
            members, targets = _members(home, folder, url)
            async with serving_together(members):
                yield targets


def _members(home: Path, folder: Path, url: str) -> tuple[list[Member], tuple[Target, Target]]:
    """The services, callers before those whom they call."""
    config = folder / "penstock.yaml"
    content = {"keys": {"api": [api_key(TENANT, KEY)]}, "limits": {"rules": [RATE]}}
    config.write_text(yaml.safe_dump(content))
    services = ("router", "http", "limiter", "cache", "batcher", "instance", "own_http")
    at = dict(zip(services, free_addresses(len(services)), strict=True))
    common: dict[str, Any] = {
        "internal_token": TOKEN,
        "home": home,
        "config_file": config,
        "ledger_url": url,
        "cache_url": url,
        "drain_s": 0,
    }
    router = RouterSettings(
        listen=at["router"],
        kserve_http_listen=at["http"],
        limiter_address=at["limiter"],
        cache_address=at["cache"],
        batcher_address=at["batcher"],
        **common,
    )
    instance = InferenceSettings(
        listen=at["instance"],
        kserve_http_listen=at["own_http"],
        router_address=at["router"],
        **common,
    )
    members = [
        Member(ROUTER, router),
        Member(BATCHER, BatcherSettings(listen=at["batcher"], **common)),
        Member(LIMITER, LimiterSettings(listen=at["limiter"], **common)),
        Member(CACHE, CacheSettings(listen=at["cache"], **common)),
        Member(INSTANCE, instance),
    ]
    key = {"authorization": f"Bearer {KEY}"}
    return members, (
        Target("instance", at["instance"], at["own_http"], {}),
        Target("router", at["router"], at["http"], key),
    )
