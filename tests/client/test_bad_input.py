"""Mistakes of the caller are refused before anything is sent, with the field and what to do."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from penstock.api.router.v1 import router_pb2 as pb
from penstock.client import BadRequest, Busy, Penstock, PenstockSync, Run
from penstock.client.errors import from_fault
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason

ADDRESS, KEY = "127.0.0.1:1", "psk-client"
MIB = 1 << 20
Use = Callable[[Penstock], Any]


@pytest.mark.parametrize(
    "address",
    [
        "",
        "127.0.0.1",
        "http://127.0.0.1:7070",
        "localhost:port",
        ":7070",
        "unix:",
        "127.0.0.1:7070/x",
        "a b:1",
        None,
    ],
)
@pytest.mark.parametrize("kind", [Penstock, PenstockSync])
def test_an_invalid_address_is_refused_with_an_example(kind: type[Penstock], address: str) -> None:
    with pytest.raises(BadRequest, match="host:port or unix:/path, such as") as caught:
        kind(address, KEY)
    assert caught.value.field == "address"


@pytest.mark.parametrize(
    "address", ["localhost:7070", "[::1]:7070", "router.penstock.svc:7070", "unix:/run/p.sock"]
)
def test_a_valid_address_is_accepted(address: str) -> None:
    Penstock(address, KEY)


@pytest.mark.parametrize("key", ["", "psk-1\n", "psk-ü", "psk\0", None, b"psk"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Penstock(ADDRESS, key)
    assert caught.value.field == "key"
    assert "psk" not in str(caught.value)


@pytest.mark.parametrize("retries", [-1, 1.5, "2"])
def test_retries_must_be_a_whole_number(retries: int) -> None:
    with pytest.raises(BadRequest, match="retries: "):
        Penstock(ADDRESS, KEY, retries=retries)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"priority": "urgent"}, "priority"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": -1}, "timeout_s"),
        ({"timeout_s": math.nan}, "timeout_s"),
        ({"timeout_s": "5"}, "timeout_s"),
    ],
)
def test_a_run_with_an_invalid_value_is_refused(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Penstock.run(**arguments)
    assert caught.value.field == field
    with pytest.raises(BadRequest):
        Run("id", **arguments)


@pytest.mark.parametrize(
    ("use", "field"),
    [
        (lambda client: client.embed("one text"), "texts"),
        (lambda client: client.embed(None), "texts"),
        (lambda client: client.embed(5), "texts"),
        (lambda client: client.embed(["a", 5]), "texts[1]"),
        (lambda client: client.embed(["a", b"bytes"]), "texts[1]"),
        (lambda client: client.embed(["a", "half \ud800"]), "texts[1]"),
        (lambda client: client.embed(["a"], options=pb.CallOptions(run_id="r")), "options.run_id"),
        (lambda client: client.classify("one text"), "texts"),
        (lambda client: client.classify(["a"], ["x"]), "examples"),
        (lambda client: client.classify(["a"], {"late": "one text"}), "examples['late']"),
        (lambda client: client.classify(["a"], {"late": [1]}), "examples['late'][0]"),
        (lambda client: client.classify(["a"], {5: ["x"]}), "examples"),
        (lambda client: client.classify(["a"], top_k=-1), "top_k"),
        (lambda client: client.classify(["a"], top_k=1.5), "top_k"),
        (lambda client: client.generate(None), "task"),
        (lambda client: client.call("Exchange", pb.EmbedRequest()), "method"),
        (lambda client: client.call("Nothing", pb.EmbedRequest()), "method"),
    ],
)
async def test_a_value_that_cannot_be_sent_is_refused_by_its_field(use: Use, field: str) -> None:
    async with Penstock(ADDRESS, KEY) as client:
        with pytest.raises(BadRequest) as caught:
            await use(client)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


@pytest.mark.parametrize("plain", [False, True], ids=["stream", "plain"])
async def test_a_request_that_is_too_large_is_refused_with_advice(plain: bool) -> None:
    async with Penstock(ADDRESS, KEY, plain=plain) as client:
        with pytest.raises(BadRequest, match="fewer or smaller inputs"):
            await client.embed(["x" * 5 * MIB])


def test_errors_can_be_pickled() -> None:
    fault = Fault(Reason.RATE_LIMITED, "no more", field="f", retry_after_s=2.0)
    error = from_fault(fault)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is Busy
    assert str(copy) == str(error)
    assert (copy.code, copy.field, copy.reason) == ("RESOURCE_EXHAUSTED", "f", "RATE_LIMITED")
    assert copy.retry_after_s == 2.0
