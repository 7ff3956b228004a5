"""Penstock as `make up` starts it, before the scripted provider and with the local models."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path

import yaml
from penstock.bench.conformance.provider import scripted_provider
from penstock.service.default_models import CHAT, ENCODER
from penstock.stack import ports
from penstock.stack.configuration import api_key
from penstock.stack.log import LogStream
from penstock.stack.stack import run_stack
from rich.console import Console

OPENAI_MODEL, ANTHROPIC_MODEL, EMBEDDING_MODEL = (
    "gpt-scripted",
    "claude-scripted",
    "embedding-scripted",
)
EMBEDDING_MODELS = (EMBEDDING_MODEL, "text-embedding-3-small")
"""The latter is the one that OpenAI's own tests ask for."""
KEYS: Mapping[str, str] = {
    "conformance": "psk-conformance",
    "openai-python": "My API Key",
    "anthropic-sdk-python": "my-anthropic-api-key",
}
"""Keys by tenant; the latter two are those of the packages' own tests."""
NAMED_MODEL = re.compile(r'(?:\bmodel(?:_id)?=|\bmodels(?:\.\w+)*\.retrieve\(\s*)"([^"]+)"')


def models_named_in(tests: Iterable[Path]) -> list[str]:
    """The models that tests of a client's package ask for, in these files and folders."""
    files = (path for each in tests for path in ([each] if each.is_file() else each.rglob("*.py")))
    texts = (path.read_text(encoding="utf-8") for path in files)
    return sorted({name for text in texts for name in NAMED_MODEL.findall(text)})


@contextlib.asynccontextmanager
async def running_gateway(
    home: Path, openai_names: Sequence[str] = (), anthropic_names: Sequence[str] = ()
) -> AsyncIterator[dict[str, str]]:
    """Start it; gives the environment by which the suites find it.

    Args:
        home: the folder with the built models.
        openai_names: further models on OpenAI's wire.
        anthropic_names: further models on Anthropic's wire.
    """
    log = LogStream(Console(quiet=True))
    with tempfile.TemporaryDirectory(prefix="penstock-conformance-") as folder:
        own = Path(folder)  # So that no answer of an earlier campaign is in the cache.
        (own / "models").symlink_to(home / "models")
        config = own / "penstock.yaml"
        async with scripted_provider() as provider:
            config.write_text(yaml.safe_dump(_config(provider.url, openai_names, anthropic_names)))
            async with run_stack(ports.free(), own, config, KEYS, log, chat=True) as stack:
                for model in (OPENAI_MODEL, ANTHROPIC_MODEL, CHAT, ENCODER):
                    await stack.wait_for_instances(model, 1, "conformance")
                yield _environment(stack.addresses["edge"])


def _environment(edge: str) -> dict[str, str]:
    return {
        "PENSTOCK_EDGE": f"http://{edge}",
        "PENSTOCK_KEY": KEYS["conformance"],
        "CONFORMANCE_OPENAI_MODEL": OPENAI_MODEL,
        "CONFORMANCE_ANTHROPIC_MODEL": ANTHROPIC_MODEL,
        "CONFORMANCE_EMBEDDING_MODEL": EMBEDDING_MODEL,
        "CONFORMANCE_LOCAL_CHAT": CHAT,
        "CONFORMANCE_LOCAL_ENCODER": ENCODER,
    }


def _config(
    url: str, openai_names: Iterable[str], anthropic_names: Iterable[str]
) -> dict[str, object]:
    openai = _models([OPENAI_MODEL, *openai_names])
    anthropic = _models([ANTHROPIC_MODEL, *anthropic_names])
    openai += [{"name": name, "tasks": ["embed"]} for name in EMBEDDING_MODELS]
    return {
        "keys": {"api": [api_key(tenant, key) for tenant, key in KEYS.items()]},
        "upstreams": {
            "servers": [
                {"name": "openai", "provider": "openai", "base_url": url, "models": openai},
                {
                    "name": "anthropic",
                    "provider": "anthropic",
                    "base_url": url,
                    "models": anthropic,
                },
            ]
        },
    }


def _models(names: Iterable[str]) -> list[dict[str, object]]:
    chats = [name for name in dict.fromkeys(names) if name not in EMBEDDING_MODELS]
    return [{"name": name, "inputs": ["text", "image", "file"]} for name in chats]
