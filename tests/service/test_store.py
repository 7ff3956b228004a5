"""The embedded Redis is a real server that keeps what it acknowledged."""

from __future__ import annotations

from pathlib import Path

from penstock.service.store import EmbeddedStore, embedded_store, open_store, reachable


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
