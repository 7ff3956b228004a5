"""LiteLLM's proxy, as its guide for production advises: a worker for each core, Redis for the cache
and the routing, errors alone in the log, no look-up of prices over the network.

It runs in `.venv-peers-litellm`, which `make peers` makes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import yaml
from penstock.bench.edge.http_client import HttpClient, HttpError
from penstock.bench.edge.provider import CHAT, SLOW, Provider
from penstock.service.store import server_binary
from penstock.stack import ports

ENVIRONMENT = Path(".venv-peers-litellm")
KEY = "sk-litellm-bench"
START_S = 120.0
POLL_S = 0.5
VARIABLES = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
}


def program() -> Path | None:
    """The command; None where it is not installed."""
    path = ENVIRONMENT / "bin" / "litellm"
    return path.resolve() if path.exists() else None


@contextlib.asynccontextmanager
async def litellm_proxy(folder: Path, provider: Provider) -> AsyncIterator[HttpClient]:
    """The proxy before a provider, with a key and a cache, and a client of it.

    Raises:
        TimeoutError: it does not answer within two minutes; its log is in `folder`.
    """
    command = program()
    assert command is not None, "ask program() first"
    store_port, port = ports.free_port(), ports.free_port()
    config = folder / "litellm.yaml"
    config.write_text(yaml.safe_dump(_config(provider, store_port)))
    with contextlib.ExitStack() as processes:
        store = [server_binary(), "--port", str(store_port), "--save", "", "--dir", str(folder)]
        _start(processes, store, folder / "store.log")
        workers = str(os.cpu_count() or 1)
        words = ["--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
        proxy = [str(command), *words, "--num_workers", workers]
        _start(processes, proxy, folder / "litellm.log")
        client = HttpClient(f"127.0.0.1:{port}", {"authorization": f"Bearer {KEY}"})
        await _wait_for(client)
        yield client
        client.close()


def _config(provider: Provider, store_port: int) -> dict[str, object]:
    def model(name: str) -> dict[str, object]:
        parameters = {
            "model": f"openai/{name}",
            "api_base": provider.base_url,
            "api_key": "sk-provider",
        }
        return {"model_name": name, "litellm_params": parameters}

    store = {"host": "127.0.0.1", "port": store_port}
    return {
        "model_list": [model(CHAT), model(SLOW)],
        "litellm_settings": {
            "cache": True,
            "cache_params": {"type": "redis", **store},
            "set_verbose": False,
            "json_logs": True,
        },
        "router_settings": {"redis_host": store["host"], "redis_port": store["port"]},
        "general_settings": {"master_key": KEY},
    }


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


async def _wait_for(client: HttpClient) -> None:
    end_s = time.monotonic() + START_S
    while True:
        try:
            await client.get("/health/liveliness")
            return
        except (OSError, HttpError):
            if time.monotonic() >= end_s:
                raise TimeoutError("LiteLLM's proxy does not answer after two minutes") from None
            await asyncio.sleep(POLL_S)
