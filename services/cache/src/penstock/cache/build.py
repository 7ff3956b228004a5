"""The assembly of the cache: entries in the store, and the semantic cache where there is an
embedder.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from pathlib import Path

import redis.asyncio
from penstock.api.cache.v1 import cache_pb2
from penstock.cache.api.cache_service import CacheServicer
from penstock.cache.lookups.answer_writer import AnswerWriter
from penstock.cache.lookups.corrections import Corrections
from penstock.cache.lookups.lookups import Lookups
from penstock.cache.lookups.parts import CacheParts
from penstock.cache.lookups.pending import PendingLookups
from penstock.cache.lookups.semantic_learning import SemanticLearning
from penstock.cache.lookups.semantic_lookup import SemanticLookup
from penstock.cache.semantic.embedder import Embedder, embedder_of
from penstock.cache.semantic.judge import Judge
from penstock.cache.semantic.learning_log import LearningLog
from penstock.cache.semantic.scopes import MAX_LOADED_SCOPES
from penstock.cache.semantic.semantic_cache import SemanticCache
from penstock.cache.settings import CacheSection, CacheSettings
from penstock.cache.statistics import CacheStatistics
from penstock.cache.storage.entry_store import EntryStore
from penstock.cache.storage.grouped_writes import GroupedWrites
from penstock.cache.storage.replica_follower import ReplicaFollower
from penstock.hosting.assembly import Assembly
from penstock.hosting.grpc_server import GrpcServer
from penstock.hosting.outside import Outside
from penstock.hosting.service import Service, reloading
from penstock.onnx.card import BadModel
from penstock.rpc.auth import services_only
from penstock.rpc.endpoint import Endpoint
from penstock.service.current import Current
from penstock.service.program import CannotStart
from penstock.service.settings import load_section
from penstock.tasks.answer_keys import key_salt

NAME = "cache"
UNCOPIED = frozenset({"LookUp", "Store", "StoreAll", "ListKeys"})
"""The router makes each of these requests for one call and leaves it and the answer as they are."""
IN_CALLERS_TASK = frozenset({"LookUp", "Store"})
"""They wait for the store, or for another look-up, and for nothing once they are cancelled."""
SERVICE = cache_pb2.DESCRIPTOR.services_by_name["CacheService"]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Models:
    """The models that the semantic cache uses.

    Without an embedder only exact answers are served; without a judge nothing is learnt from free
    text. `max_loaded_scopes` is how many semantic scopes are kept in memory.
    """

    embedder: Embedder | None = None
    judge: Judge | None = None
    max_loaded_scopes: int = MAX_LOADED_SCOPES


@dataclass(frozen=True)
class Cache:
    """An assembled cache without a port. Owner: whoever opens it closes it."""

    servicer: CacheServicer
    entries: EntryStore
    pending: PendingLookups
    statistics: CacheStatistics
    semantic_cache: SemanticCache | None
    section: Current[CacheSection]
    replicas: ReplicaFollower
    writes: GroupedWrites
    judge: Judge | None

    @property
    def is_caught_up(self) -> bool:
        """Whether all that the store held at the start is read."""
        semantic = self.semantic_cache
        return self.replicas.is_caught_up and (semantic is None or semantic.is_caught_up)

    async def open(self) -> None:
        """Begin to read what the store holds, and to follow what other replicas do; the cache
        serves meanwhile, and where the store does not answer.
        """
        await self.replicas.start()
        if self.semantic_cache is not None:
            await self.semantic_cache.start()

    async def close(self) -> None:
        """End background work. The store's client belongs to whoever made it."""
        await self.writes.close()
        if self.judge is not None:
            await self.judge.close()
        if self.semantic_cache is not None:
            await self.semantic_cache.close()
        await self.replicas.close()
        await self.entries.close()

    def reload(self, section: CacheSection) -> None:
        """Put another section in force; scopes in memory keep their error bound."""
        self.section.value = section
        self.entries.reload(section)
        if self.semantic_cache is not None:
            self.semantic_cache.learning_log.max_bytes = section.lessons_bytes


def build(settings: CacheSettings, outside: Outside) -> Service:
    """Make the cache's service.

    Raises:
        BadConfig: the `cache` section of the file is wrong.
        CannotStart: there is no store, or the embedder cannot be used.
    """
    if not settings.cache_url:
        raise CannotStart(
            "the cache stores entries in Redis: set PENSTOCK_CACHE_URL (make up does)"
        )
    section = _section(settings)
    client = outside.open_store(settings.cache_url)
    judge = _judge(section)
    cache = assemble(settings, section, client, outside, Models(_embedder(settings), judge))
    authenticate = services_only(SERVICE, settings.tokens)
    endpoint = Endpoint(
        SERVICE, cache.servicer, authenticate, uncopied=UNCOPIED, in_callers_task=IN_CALLERS_TASK
    )

    async def drain() -> None:
        cache.entries.new_entries.leave()

    async def close() -> None:
        await cache.close()
        await client.aclose()

    return Service(
        NAME,
        [GrpcServer(NAME, settings, [endpoint], tracer=outside.telemetry, clock=outside.clock)],
        [endpoint],
        open=cache.open,
        drain=drain,
        close=close,
        prepare_reload=reloading(lambda: _section(settings), cache.reload),
    )


def assemble(
    settings: CacheSettings,
    section: CacheSection,
    client: redis.asyncio.Redis,
    outside: Outside,
    models: Models,
) -> Cache:
    """Make a cache on a store, with these models."""
    secret = (settings.secret or secrets.token_hex(32)).encode()
    current = Current(section)
    entries = EntryStore(client, secret, section, outside.rng)
    semantic_cache = _semantic_cache(current, client, outside, models)
    statistics = CacheStatistics(entries, semantic_cache, outside.telemetry)
    pending = PendingLookups(outside.clock)
    writes = GroupedWrites(entries)
    salt = key_salt(secret)
    parts = CacheParts(entries, writes, pending, statistics, current, outside.clock, salt)
    semantic_lookup = SemanticLookup(semantic_cache, secret, current, outside.clock)
    learning = SemanticLearning(semantic_cache, entries, models.judge, outside.telemetry)
    servicer = CacheServicer(
        parts,
        Lookups(parts, semantic_lookup, settings.coalesce_ms / 1e3),
        AnswerWriter(parts, learning),
        Corrections(parts, learning),
    )
    return Cache(
        servicer,
        entries,
        pending,
        statistics,
        semantic_cache,
        current,
        ReplicaFollower(entries),
        writes,
        models.judge,
    )


def _section(settings: CacheSettings) -> CacheSection:
    return load_section(settings.config_file, "cache", CacheSection)


def _semantic_cache(
    section: Current[CacheSection],
    client: redis.asyncio.Redis,
    outside: Outside,
    models: Models,
) -> SemanticCache | None:
    if models.embedder is None:
        return None
    return SemanticCache(
        LearningLog(client, section.value.lessons_bytes),
        section,
        models.embedder,
        outside.rng,
        outside.clock,
        max_loaded_scopes=models.max_loaded_scopes,
    )


def _judge(section: CacheSection) -> Judge | None:
    if section.judge is None:
        return None
    from penstock.cache.semantic.openai_judge import OpenAiJudge  # with httpx

    return OpenAiJudge(section.judge)


def _embedder(settings: CacheSettings) -> Embedder | None:
    """The newest revision of the embedder; None, and a warning, where there is none.

    Raises:
        CannotStart: its files are not those of its card.
    """
    folder = settings.home / "models" / settings.embedder
    revisions = sorted(folder.glob("*"), key=_revision_order) if settings.embedder else []
    if not revisions:
        log.warning(
            "no embedder %r in %s: only exact answers are served (make model builds one)",
            settings.embedder,
            folder.parent,
        )
        return None
    try:
        return embedder_of(settings.embedder, revisions[-1])
    except BadModel as error:
        raise CannotStart(f"the embedder cannot be used: {error}") from None


def _revision_order(folder: Path) -> tuple[int, str]:
    """Revisions are numbers: a longer name is a larger one."""
    return len(folder.name), folder.name


ASSEMBLY = Assembly(NAME, CacheSettings, build, "Is there an answer that may be reused?")
