"""KEDA's calls byte by byte, as its client and its metrics server send them: names in any case, the
prefix of the trigger taken off, pull and push on one connection.
"""

from __future__ import annotations

import grpc
import pytest
from penstock.scaler.api.keda_service import metric_name

from .conftest import Scaler, Scalers, feed

pytestmark = pytest.mark.standard_case(33)

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
SERVICE = "/externalscaler.ExternalScaler/"


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field of protobuf's wire format, shorter than 128 bytes."""
    return bytes([number << 3 | 2, len(payload)]) + payload


def entry(key: str, value: str) -> bytes:
    """An entry of the map `scalerMetadata`."""
    return field(3, field(1, key.encode()) + field(2, value.encode()))


def ref(pool: str) -> bytes:
    """A ScaledObjectRef with the metadata of the whole trigger, as KEDA passes it on."""
    metadata = entry("scalerAddress", "scaler-keda.penstock.svc:7079") + entry("pool", pool)
    return field(1, b"inference") + field(2, b"penstock") + metadata


async def unary(scaler: Scaler, method: str, payload: bytes) -> bytes:
    answer: bytes = await scaler.channel.unary_unary(SERVICE + method)(payload)
    return answer


async def spec_name(scaler: Scaler) -> bytes:
    """The metric's name in GetMetricSpec's answer."""
    spec = await unary(scaler, "GetMetricSpec", ref(MODEL))
    inner = spec[2:]
    assert inner[0] == 1 << 3 | 2, "the name comes first"
    return inner[2 : 2 + inner[1]]


async def test_a_spec_has_a_name_that_kubernetes_leaves_as_it_is(scalers: Scalers) -> None:
    scaler = await scalers.make(name=MODEL)
    name = (await spec_name(scaler)).decode()
    assert name == name.lower() == metric_name(MODEL)
    assert "/" not in name and "." not in name


@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title])
async def test_a_metric_is_found_in_any_case(scalers: Scalers, spelling: object) -> None:
    scaler = await scalers.make(name=MODEL)
    asked = spelling((await spec_name(scaler)).decode()).encode()  # type: ignore[operator]
    answer = await unary(scaler, "GetMetrics", field(1, ref(MODEL)) + field(2, asked))
    assert asked in answer, "the value carries the name that was asked for"


@pytest.mark.parametrize("spelling", [str.lower, str.upper])
async def test_a_pool_is_found_in_any_case(scalers: Scalers, spelling: object) -> None:
    scaler = await scalers.make(name=MODEL)
    pool = spelling(MODEL)  # type: ignore[operator]
    for method in ("IsActive", "GetMetricSpec"):
        assert await unary(scaler, method, ref(pool))


async def test_a_push_stream_follows_the_state(scalers: Scalers) -> None:
    scaler = await scalers.make(name=MODEL)
    stream = scaler.channel.unary_stream(SERVICE + "StreamIsActive")(ref(MODEL.lower()))
    assert await stream.read() == b"\x08\x01"
    await feed(scaler, [0.0] * 10, model=MODEL)
    while await stream.read() != b"":  # `false` is protobuf's default, so no byte at all
        pass
    stream.cancel()


async def test_the_newer_stream_of_specs_is_declined_as_keda_expects(scalers: Scalers) -> None:
    scaler = await scalers.make(name=MODEL)
    stream = scaler.channel.unary_stream(SERVICE + "StreamMetricSpec")(ref(MODEL))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
