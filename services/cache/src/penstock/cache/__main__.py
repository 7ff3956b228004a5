"""The hall: configuration, store, embedder, door. `python -m penstock.cache`."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from random import Random

import numpy as np
from penstock.api.cache.v1 import cache_pb2
from penstock.cache.api.cache_service import CacheServicer
from penstock.cache.semantic.classes import Floats
from penstock.cache.semantic.judge import OpenAiJudge
from penstock.cache.semantic.learning_log import Lessons
from penstock.cache.semantic.semantic_cache import Embedder, SemanticTier
from penstock.cache.settings import CacheSection, CacheSettings
from penstock.cache.storage.entries import Entries
from penstock.cache.storage.replicas import Replicas
from penstock.onnx.card import BadModel
from penstock.onnx.encoder import TextModel
from penstock.otel.start import start_telemetry
from penstock.rpc.auth import internal
from penstock.rpc.endpoint import Door
from penstock.rpc.server import Server
from penstock.service.clock import Clock, SystemClock
from penstock.service.program import CannotStart, run
from penstock.service.settings import load_section, watch_sighup
from penstock.service.store import open_redis

SERVICE = cache_pb2.DESCRIPTOR.services_by_name["CacheService"]
log = logging.getLogger(__name__)


async def serve(settings: CacheSettings) -> None:
    """Serve until told to stop."""
    if not settings.redis_url:
        raise CannotStart(
            "the cache keeps its entries in Redis: set PENSTOCK_REDIS_URL (make up does)"
        )
    clock, client = SystemClock(), open_redis(settings.redis_url)
    section = load_section(settings.config_file, "cache", CacheSection)
    async with contextlib.AsyncExitStack() as owned:
        owned.push_async_callback(client.aclose)
        telemetry = await owned.enter_async_context(start_telemetry("cache", settings))
        entries = Entries(client, (settings.secret or settings.internal_token).encode(), section)
        replicas = Replicas(entries)
        await replicas.start()
        owned.push_async_callback(replicas.close)
        tier = _tier(settings, section, Lessons(client, section.lessons_bytes), clock)
        if tier is not None:
            await tier.start()
            owned.push_async_callback(tier.close)
        servicer = CacheServicer(settings, section, entries, tier, clock)
        if section.judge is not None:
            judge = servicer.likeness.judge = OpenAiJudge(section.judge)
            owned.push_async_callback(judge.close)
        servicer.watch(telemetry)
        watch_sighup(
            lambda: servicer.reload(load_section(settings.config_file, "cache", CacheSection))
        )
        door = Door(SERVICE, servicer, internal(settings.internal_token))
        server = Server("cache", settings, [door], tracer=telemetry, clock=clock)
        await server.start()
        await server.wait()


def _tier(
    settings: CacheSettings, section: CacheSection, lessons: Lessons, clock: Clock
) -> SemanticTier | None:
    """The semantic tier with the newest revision of its embedder; None, and a warning, where there
    is none.
    """
    folder = settings.home / "models" / settings.embedder
    revisions = (
        sorted(folder.glob("*"), key=lambda path: (len(path.name), path.name))
        if settings.embedder
        else []
    )
    if not revisions:
        log.warning(
            "no embedder %r in %s: exact answers only (make model builds one)",
            settings.embedder,
            folder.parent,
        )
        return None
    return SemanticTier(
        lessons, section, _embedder(settings.embedder, revisions[-1]), Random(), clock
    )


def _embedder(name: str, folder: Path) -> Embedder:
    try:
        model = TextModel.load(folder)
    except BadModel as error:
        raise CannotStart(f"the embedder cannot be loaded: {error}") from None

    def embed(text: str) -> Floats:
        vector = model.embed([text])[0]
        return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), np.float32)

    return Embedder(f"{name}@{folder.name}", len(embed("width")), embed)


def main() -> None:
    run("cache", CacheSettings, serve, "Is there an answer that may be reused?")


if __name__ == "__main__":
    main()
