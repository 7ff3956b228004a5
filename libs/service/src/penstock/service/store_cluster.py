"""What differs where the store is a cluster: which servers there are, and how each is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import redis.asyncio
from redis.asyncio.cluster import ClusterNode, RedisCluster

SLOTS = 16_384
MAX_NODES = 1_024
"""Servers of a cluster that hold keys, at most."""


def as_cluster(client: redis.asyncio.Redis) -> RedisCluster | None:
    """The client as that of a cluster; None where it is not one."""
    given: object = client  # redis-py's two clients have no class in common
    return given if isinstance(given, RedisCluster) else None


def by_slot(client: redis.asyncio.Redis, keys: Iterable[str]) -> list[list[str]]:
    """Keys that one script may touch: those of a slot in a cluster, all of them elsewhere."""
    cluster = as_cluster(client)
    if cluster is None:
        return [list(keys)]
    slots: dict[int, list[str]] = {}
    for key in keys:
        slots.setdefault(cluster.keyslot(key), []).append(key)
    return list(slots.values())


def keys_by_server(cluster: RedisCluster, prefix: str) -> dict[ClusterNode, str]:
    """A key that begins with `prefix` for each server of a cluster that holds keys."""
    missing = set(cluster.get_primaries())
    keys: dict[ClusterNode, str] = {}
    for number in range(SLOTS):
        key = f"{prefix}:{number}"
        node = cluster.get_node_from_key(key)
        if node is not None and node in missing:
            missing.discard(node)
            keys[node] = key
        if not missing:
            break
    return keys


async def sync_servers(cluster: RedisCluster, prefix: str, timeout_ms: int) -> list[Sequence[Any]]:
    """Write a key at each server and wait until its disk has it; gives their replies of WAITAOF.

    Raises:
        RedisError, OSError, TimeoutError: a server does not answer.
    """
    await cluster.initialize()
    keys = keys_by_server(cluster, prefix)
    return await asyncio.gather(*(_sync(*pair, timeout_ms) for pair in keys.items()))


async def _sync(node: ClusterNode, key: str, timeout_ms: int) -> Sequence[Any]:
    """WAITAOF is about the writes of its own connection, so one connection sends both."""
    connection = node.acquire_connection()
    try:
        await connection.connect()
        await connection.send_command("SET", key, 1)
        await connection.send_command("WAITAOF", 1, 0, timeout_ms)
        await node.parse_response(connection, "SET")
        reply: Sequence[Any] = await node.parse_response(connection, "WAITAOF")
        return reply
    except BaseException:
        await connection.disconnect()  # an answer may be on its way
        raise
    finally:
        node.release(connection)


async def scan_page(
    client: redis.asyncio.Redis, cursor: int, match: str, count: int
) -> tuple[int, list[bytes]]:
    """Some of all keys that match, and the cursor of the next page; cursor 0 begins, and 0 ends.

    In a cluster the servers come one after another, and the cursor says which.
    """
    cluster = as_cluster(client)
    if cluster is None:
        found: Any = await client.scan(cursor, match=match, count=count)
        return int(found[0]), found[1]
    await cluster.initialize()
    own_cursor, number = divmod(cursor, MAX_NODES)
    nodes = sorted(cluster.get_primaries(), key=lambda node: node.name)[:MAX_NODES]
    if number >= len(nodes):  # the cluster has fewer servers than when the scan began
        return 0, []
    page: Any = await cluster.scan(own_cursor, match=match, count=count, target_nodes=nodes[number])
    next_cursor = int(next(iter(page[0].values())))
    if next_cursor:
        return next_cursor * MAX_NODES + number, page[1]
    return (number + 1 if number + 1 < len(nodes) else 0), page[1]
