"""How a store is reached: by URL, with a password, as an ACL user, over TLS, through Sentinel."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from penstock.service.durability import Fsyncs
from penstock.service.program import CannotStart
from penstock.service.store import check_store, open_store, reachable
from penstock.service.store_url import parse
from penstock.testkit.eventually import eventually
from penstock.testkit.store_servers import HOST, running_server, store_cluster, watched_store
from redis.exceptions import RedisError


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://h:1", "must begin"),
        ("h:6379", "must begin"),
        ("redis://", "no host"),
        ("redis://h:0", "HOST:PORT"),
        ("redis://h:x", "HOST:PORT"),
        ("redis://h:1/x", "database"),
        ("redis://h:1?color=red", "unknown value color"),
        ("sentinel://h:1", "names no service"),
        ("cluster://h:1/3", "database"),
    ],
)
def test_a_url_that_cannot_be_is_refused_without_being_repeated(url: str, problem: str) -> None:
    with pytest.raises(CannotStart, match=problem) as refused:
        open_store(url.replace("://", "://user:topsecret@"))
    assert "topsecret" not in str(refused.value)


@pytest.mark.threat("store's password in an output")
def test_passwords_are_left_out_of_an_addresss_text() -> None:
    address = parse("sentinels://u:topsecret@a:1,b/main/2?sentinel_password=also-secret")
    assert (address.hosts, address.service, address.db) == ((("a", 1), ("b", 26379)), "main", 2)
    assert (address.username, address.password, address.tls) == ("u", "topsecret", True)
    assert "secret" not in repr(address)


async def test_a_store_with_a_password_needs_it(tmp_path: Path) -> None:
    own = f"redis://:s3cret@{HOST}"
    async with running_server(tmp_path, "--requirepass", "s3cret", password="s3cret") as server:
        async with open_store(f"{own}:{server.port}") as client:
            assert await client.ping()
            await check_store(client, "PENSTOCK_LEDGER_URL")
        for wrong in (f"redis://{HOST}", f"redis://:wrong@{HOST}"):
            async with open_store(f"{wrong}:{server.port}", retries=0) as client:
                with pytest.raises(CannotStart, match="PENSTOCK_LEDGER_URL: the store refuses"):
                    await check_store(client, "PENSTOCK_LEDGER_URL")


@pytest.mark.threat("store's user beyond its keys")
async def test_an_acl_user_is_served_and_a_missing_permission_stops_the_start(
    tmp_path: Path,
) -> None:
    users = (
        "--user", "penstock", "on", ">pw", "~penstock:*", "&penstock:*", "+@all", "-@dangerous",
        "+info", "--user", "poor", "on", ">pw", "~*", "+ping", "+info",
    )  # fmt: skip # an option and its values on a line
    async with running_server(tmp_path, *users) as server:
        async with open_store(f"redis://penstock:pw@{HOST}:{server.port}") as client:
            await check_store(client, "PENSTOCK_LEDGER_URL")
            await client.set("penstock:x", 1)
            with pytest.raises(RedisError):
                await client.set("other", 1)
        async with open_store(f"redis://poor:pw@{HOST}:{server.port}") as client:
            with pytest.raises(CannotStart, match="refuses EVAL"):
                await check_store(client, "PENSTOCK_LEDGER_URL")


@contextlib.asynccontextmanager
async def tls_server(folder: Path) -> AsyncIterator[tuple[int, Path]]:
    """A server behind an end of TLS, since the embedded one is built without; its port and the file
    of its authority.
    """
    authority, tls = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    file = folder / "ca.pem"
    authority.cert_pem.write_to_path(file)
    async with running_server(folder / "data") as server:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, onward = await asyncio.open_connection(HOST, server.port)
            await asyncio.gather(copy(reader, onward), copy(there, writer))

        async with await asyncio.start_server(serve, "localhost", 0, ssl=tls) as end:
            yield end.sockets[0].getsockname()[1], file


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what is read until its end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.mark.threat("store behind a certificate of another authority")
async def test_a_store_over_tls_is_reached_with_its_authority_only(tmp_path: Path) -> None:
    async with tls_server(tmp_path) as (port, authority):
        async with open_store(f"rediss://localhost:{port}?ssl_ca_certs={authority}") as client:
            assert await client.ping()
        for url in (
            f"rediss://localhost:{port}",
            f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority}",
            f"redis://localhost:{port}",
        ):
            async with open_store(url, retries=0) as client:
                assert not await reachable(client)
    with pytest.raises(CannotStart, match="not there"):
        open_store(f"rediss://h:1?ssl_ca_certs={tmp_path}/none.pem")


async def test_sentinel_leads_to_the_new_primary_with_what_was_called_durable(
    tmp_path: Path,
) -> None:
    async with watched_store(tmp_path) as watched, open_store(watched.url) as client:
        fsyncs = Fsyncs(client)
        await fsyncs.learn()
        durable = 0
        for number in range(20):
            await client.set(f"penstock:n:{number}", number)
            await fsyncs.wait()
            durable += 1
        watched.primary.kill()

        async def again() -> bool:
            return bool(await client.set("penstock:after", 1))

        await eventually(again, 60, not_yet=(RedisError, OSError))
        kept = [await client.exists(f"penstock:n:{number}") for number in range(durable)]
        await fsyncs.close()
    assert kept == [1] * 20


async def test_reads_wait_at_the_store_through_sentinel_and_in_a_cluster_too(
    tmp_path: Path,
) -> None:
    async with (
        watched_store(tmp_path / "watched") as watched,
        store_cluster(tmp_path / "cluster") as cluster,
    ):
        for url in (watched.url, cluster):
            async with open_store(url, timeout_s=1.0, retries=0) as client:
                assert not await client.xread({"penstock:stream": "$"}, block=1_500)
