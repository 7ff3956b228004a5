"""The assembly of the cache: entries in the store, the semantic tier where there is an embedder."""

from __future__ import annotations

import logging
from pathlib import Path
from random import Random

import numpy as np
from penstock.api.cache.v1 import cache_pb2
from penstock.cache.api.cache_service import CacheServicer
from penstock.cache.semantic.classes import Floats
from penstock.cache.semantic.judge import OpenAiJudge
from penstock.cache.semantic.learning_log import LearningLog
from penstock.cache.semantic.semantic_cache import Embedder, SemanticCache
from penstock.cache.settings import CacheSection, CacheSettings
from penstock.cache.storage.entry_store import EntryStore
from penstock.cache.storage.replica_follower import ReplicaFollower
from penstock.hosting.grpc_server import GrpcServer
from penstock.hosting.outside import Outside
from penstock.hosting.service import Service
from penstock.onnx.card import BadModel
from penstock.onnx.encoder import TextModel
from penstock.rpc.auth import internal
from penstock.rpc.endpoint import Endpoint
from penstock.service.clock import Clock
from penstock.service.program import CannotStart
from penstock.service.settings import load_section

NAME = "cache"
SERVICE = cache_pb2.DESCRIPTOR.services_by_name["CacheService"]
log = logging.getLogger(__name__)


def build(settings: CacheSettings, outside: Outside) -> Service:
    """Make the cache; raises BadConfig, and CannotStart where no store or embedder can be had."""
    if not settings.redis_url:
        raise CannotStart(
            "the cache keeps its entries in Redis: set PENSTOCK_REDIS_URL (make up does)"
        )
    client, section = outside.open_store(settings.redis_url), _section(settings)
    entries = EntryStore(client, (settings.secret or settings.internal_token).encode(), section)
    replicas = ReplicaFollower(entries)
    learning_log = LearningLog(client, section.lessons_bytes)
    semantic_cache = _semantic_cache(settings, section, learning_log, outside.clock)
    judge = OpenAiJudge(section.judge) if section.judge is not None else None
    servicer = CacheServicer(
        settings, section, entries, semantic_cache, outside.clock, judge, outside.telemetry
    )
    endpoint = Endpoint(SERVICE, servicer, internal(settings.internal_token))

    async def open_() -> None:
        await replicas.start()
        if semantic_cache is not None:
            await semantic_cache.start()

    async def close() -> None:
        if judge is not None:
            await judge.close()
        if semantic_cache is not None:
            await semantic_cache.close()
        await replicas.close()
        await client.aclose()

    return Service(
        NAME,
        [GrpcServer(NAME, settings, [endpoint], tracer=outside.telemetry, clock=outside.clock)],
        [endpoint],
        open=open_,
        close=close,
        reload=lambda: servicer.reload(_section(settings)),
    )


def _section(settings: CacheSettings) -> CacheSection:
    return load_section(settings.config_file, "cache", CacheSection)


def _semantic_cache(
    settings: CacheSettings, section: CacheSection, learning_log: LearningLog, clock: Clock
) -> SemanticCache | None:
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
    return SemanticCache(
        learning_log, section, _embedder(settings.embedder, revisions[-1]), Random(), clock
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
