"""What a caller gives by mistake is refused before anything is sent, by the name of the field and
with what to do.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from penstock.api.router.v1 import router_pb2 as pb
from penstock.client import BadRequest, Busy, Penstock, PenstockSync, Run
from penstock.client.errors import of_fault
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason

ADDRESS, KEY = "127.0.0.1:1", "psk-client"
Act = Callable[[Penstock], Any]


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
def test_an_address_that_is_none(kind: type[Penstock], address: str) -> None:
    with pytest.raises(BadRequest, match="host:port or unix:/path, such as") as caught:
        kind(address, KEY)
    assert caught.value.field == "address"


@pytest.mark.parametrize(
    "address", ["localhost:7070", "[::1]:7070", "router.penstock.svc:7070", "unix:/run/p.sock"]
)
def test_an_address_that_is_one(address: str) -> None:
    Penstock(address, KEY)


@pytest.mark.parametrize("key", ["", "psk-1\n", "psk-ü", "psk\0", None, b"psk"])
def test_a_key_that_no_header_can_carry(key: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Penstock(ADDRESS, key)
    assert caught.value.field == "key"
    assert "psk" not in str(caught.value)


@pytest.mark.parametrize("retries", [-1, 1.5, "2"])
def test_retries_that_are_no_number(retries: int) -> None:
    with pytest.raises(BadRequest, match="retries: "):
        Penstock(ADDRESS, KEY, retries=retries)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"priority": "urgent"}, "priority"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": -1}, "timeout_s"),
        ({"timeout_s": math.nan}, "timeout_s"),
        ({"timeout_s": "5"}, "timeout_s"),
    ],
)
def test_a_run_that_cannot_be(given: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Penstock.run(**given)
    assert caught.value.field == field
    with pytest.raises(BadRequest):
        Run("id", **given)


@pytest.mark.parametrize(
    ("act", "field"),
    [
        (lambda it: it.embed("one text"), "texts"),
        (lambda it: it.embed(None), "texts"),
        (lambda it: it.embed(5), "texts"),
        (lambda it: it.embed(["a", 5]), "texts[1]"),
        (lambda it: it.embed(["a", b"bytes"]), "texts[1]"),
        (lambda it: it.embed(["a", "half \ud800"]), "texts[1]"),
        (lambda it: it.embed(["a"], options=pb.CallOptions(run_id="r")), "options.run_id"),
        (lambda it: it.classify("one text"), "texts"),
        (lambda it: it.classify(["a"], ["x"]), "examples"),
        (lambda it: it.classify(["a"], {"late": "one text"}), "examples['late']"),
        (lambda it: it.classify(["a"], {"late": [1]}), "examples['late'][0]"),
        (lambda it: it.classify(["a"], {5: ["x"]}), "examples"),
        (lambda it: it.classify(["a"], top_k=-1), "top_k"),
        (lambda it: it.classify(["a"], top_k=1.5), "top_k"),
        (lambda it: it.generate(None), "task"),
        (lambda it: it.call("Exchange", pb.EmbedRequest()), "method"),
        (lambda it: it.call("Nothing", pb.EmbedRequest()), "method"),
    ],
)
async def test_a_value_that_cannot_be_sent(act: Act, field: str) -> None:
    async with Penstock(ADDRESS, KEY) as client:
        with pytest.raises(BadRequest) as caught:
            await act(client)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


@pytest.mark.parametrize("plain", [False, True], ids=["stream", "plain"])
async def test_a_request_larger_than_a_message_says_what_fits(plain: bool) -> None:
    async with Penstock(ADDRESS, KEY, plain=plain) as client:
        with pytest.raises(BadRequest, match="fewer or smaller inputs"):
            await client.embed(["x" * (5 << 20)])


def test_an_error_travels_between_processes() -> None:
    error = of_fault(Fault(Reason.RATE_LIMITED, "no more", field="f", retry_after_s=2.0))
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy).keys()) == (Busy, str(error), vars(error).keys())
    assert (copy.code, copy.field, copy.reason, copy.retry_after_s) == (
        "RESOURCE_EXHAUSTED",
        "f",
        "RATE_LIMITED",
        2.0,
    )
