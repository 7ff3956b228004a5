"""`penstock keys` against the operators' service of a router, on a real store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from penstock.api.router.v1 import keys_pb2 as pb
from penstock.cli.commands.keys import state
from penstock.router.api.key_service import KeyServicer
from penstock.router.credentials import KEYS
from penstock.router.identity.key_store import KeyStore
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.operators import operator_authenticator
from penstock.service.clock import SystemClock
from penstock.service.store import embedded_store, open_store
from penstock.testkit.server import serving
from running_command import run_command


@pytest.fixture
async def options(tmp_path: Path) -> AsyncIterator[list[str]]:
    """Command-line options for a running operators' service."""
    async with embedded_store(tmp_path / "store") as url, open_store(url) as store:
        servicer = KeyServicer(KeyStore(store), SystemClock())
        endpoint = Endpoint(KEYS, servicer, operator_authenticator({"s3cret": "olga"}))
        async with serving([endpoint]) as server:
            yield ["--router-keys", server.address, "--admin-token", "s3cret", "--json"]


async def run(*arguments: str) -> dict[str, object]:
    ended = await run_command(*arguments)
    assert ended.status == 0, ended.error
    answer: dict[str, object] = json.loads(ended.out)
    return answer


async def test_a_key_is_made_listed_rotated_and_revoked(options: list[str]) -> None:
    asked = ["--organisation", "acme", "--model", "small-*", "--task", "embed", "--ceiling", "high"]
    made = await run("keys", "new", *asked, "--expires-in", "90d", *options)
    key = made["key"]
    assert isinstance(key, dict)
    assert key["scope"]["models"] == ["small-*"]
    assert key["scope"]["priority_ceiling"] == "PRIORITY_HIGH"
    assert str(made["secret"]).startswith(f"psk_{key['id']}_")
    rotated = await run("keys", "rotate", key["id"], "--reason", "yearly", *options)
    assert rotated["secret"] != made["secret"]
    await run("keys", "revoke", key["id"], "--reason", "leaked", *options)
    assert (await run("keys", "list", *options))["keys"] == []
    listed = await run("keys", "list", "--ended", *options)
    assert str(made["secret"]) not in json.dumps(listed)
    audit = await run("keys", "audit", *options)
    changes = audit["changes"]
    assert isinstance(changes, list)
    assert [row["action"] for row in changes] == ["RevokeKey", "RotateKey", "CreateKey"]


@pytest.mark.threat("operators' port without a secret")
@pytest.mark.parametrize("secret", ["wrong", "s3cre", "s3cret2"])
async def test_without_an_operators_secret_nothing_is_shown(
    options: list[str], secret: str
) -> None:
    ended = await run_command("keys", "list", *options, "--admin-token", secret)
    assert ended.status == 1
    assert "secret of an operator" in ended.error


@pytest.mark.parametrize(
    "arguments", [["--expires-in", "soon"], ["--budget", "x"], ["--ceiling", "boss"]]
)
async def test_what_cannot_be_read_ends_with_status_2(
    options: list[str], arguments: list[str]
) -> None:
    ended = await run_command("keys", "new", "--organisation", "acme", *arguments, *options)
    assert ended.status == 2


def test_a_state_says_until_when() -> None:
    assert state(pb.Key(), 0) == "in force"
    assert state(pb.Key(revoked_unix_ms=1), 0) == "revoked"
    assert state(pb.Key(expires_unix_ms=3_600_000), 0) == "ends in 1 h 0 min"
    assert state(pb.Key(expires_unix_ms=1), 2) == "expired"
