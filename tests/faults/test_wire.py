"""What arrives at a port and is no proper call: it is refused, and others are served."""

from __future__ import annotations

import asyncio
import struct

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.hosting.grpc_server import ServerLimits
from penstock.rpc.call import Call
from penstock.rpc.peers.stream import open_channel
from penstock.rpc.peers.unary import UnaryPeer
from penstock.testkit.eventually import eventually
from penstock.testkit.instance import INFERENCE
from penstock.testkit.raw_http2 import raw_http2
from penstock.testkit.server import TOKEN

from .wire import COMPUTE, HANG, METADATA, Counting, served, works

REFUSED = {str(code.value[0]) for code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL)}
HTTP_1 = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
TLS_HELLO = bytes.fromhex("16030100c8010000c403031ebf5c6e1a2b00000000")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
TRIES = 2_000


@pytest.mark.fault(1)
@pytest.mark.parametrize("path", [f"/{INFERENCE.full_name}/Nope", "/nope.Nope/Compute"])
async def test_an_unknown_method_or_service_is_unimplemented(path: str) -> None:
    async with served(Counting()) as address:
        async with open_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(path)(b"", metadata=METADATA)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert await works(address)


@pytest.mark.fault(3)
@pytest.mark.parametrize("data", [HTTP_1, TLS_HELLO], ids=["http/1.1", "tls"])
async def test_another_protocol_is_cut_off_and_others_are_served(data: bytes) -> None:
    async with served(Counting()) as address:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        async with asyncio.timeout(30.0):
            while await reader.read(1 << 16):
                pass
        writer.close()
        assert await works(address)


@pytest.mark.fault(3)
@pytest.mark.parametrize("data", [b"", PREFACE], ids=["nothing", "preface"])
async def test_a_silent_connection_holds_nobody_up(data: bytes) -> None:
    async with served(Counting()) as address:
        host, _, port = address.rpartition(":")
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
        for _, writer in opened:
            writer.write(data)
        assert await works(address)
        for _, writer in opened:
            writer.transport.abort()


@pytest.mark.fault(5)
async def test_a_gzip_bomb_is_refused() -> None:
    async with served(Counting()) as address:
        async with open_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(COMPUTE)(
                    bytes(16 << 20), metadata=METADATA, compression=grpc.Compression.Gzip
                )
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await works(address)


@pytest.mark.fault(6)
async def test_a_message_in_an_unknown_compression_is_refused_unread() -> None:
    """gRPC's library says INTERNAL for a name that it does not know, before any code of ours."""
    servicer = Counting()
    async with served(servicer) as address:
        async with raw_http2(address) as client:
            stream = client.begin(COMPUTE, (*METADATA, ("grpc-encoding", "snappy")))
            message = b"\x01" + struct.pack(">I", 4) + b"abcd"
            client.connection.send_data(stream, message, end_stream=True)
            await client.flush()
            headers = await client.headers_of(stream)
        assert headers["grpc-status"] in REFUSED
        assert not servicer.deadlines_s
        assert await works(address)


@pytest.mark.fault(10)
async def test_a_call_without_a_deadline_gets_one_and_a_short_one_ends_in_time() -> None:
    servicer = Counting()
    async with served(servicer) as address, open_channel(address) as channel:
        hang = pb.ComputeRequest(model=HANG).SerializeToString()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(COMPUTE)(hang, metadata=METADATA, timeout=0.05)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await eventually(lambda: servicer.running == 0)
        await channel.unary_unary(COMPUTE)(b"", metadata=METADATA)
        assert servicer.deadlines_s[-1] < float("inf")


@pytest.mark.fault(16)
async def test_streams_that_are_reset_after_their_headers_or_data_disturb_nobody() -> None:
    servicer = Counting()
    hang = pb.ComputeRequest(model=HANG).SerializeToString()
    message = b"\x00" + struct.pack(">I", len(hang)) + hang
    async with served(servicer) as address:
        async with raw_http2(address) as client:
            for data, ends in ((b"", False), (message[:3], False), (message, True)):
                stream = client.begin(COMPUTE, METADATA)
                if data:
                    client.connection.send_data(stream, data, end_stream=ends)
                await client.flush()
                client.connection.reset_stream(stream)
                await client.flush()
            assert await works(address)
        assert await eventually(lambda: servicer.running == 0)


@pytest.mark.fault(16)
async def test_a_flood_of_pings_ends_its_connection_and_no_other() -> None:
    async with served(Counting()) as address, raw_http2(address) as client:
        for number in range(500):
            client.connection.ping(struct.pack(">Q", number))
        await client.flush()
        assert await works(address)


@pytest.mark.fault(16)
async def test_calls_beyond_the_streams_of_a_connection_wait_and_complete() -> None:
    async with served(Counting(), ServerLimits(max_streams=1)) as address:
        peer = UnaryPeer(open_channel(address), INFERENCE, token=TOKEN)
        calls = (peer.call("Compute", pb.ComputeRequest(), Call()) for _ in range(10))
        assert len(await asyncio.gather(*calls)) == 10
        await peer.close()


@pytest.mark.fault(17)
async def test_streams_opened_and_reset_at_once_leave_no_work() -> None:
    servicer = Counting()
    hang = pb.ComputeRequest(model=HANG).SerializeToString()
    message = b"\x00" + struct.pack(">I", len(hang)) + hang
    async with served(servicer, ServerLimits(max_streams=100)) as address:
        for _ in range(TRIES // 100):
            async with raw_http2(address) as client:
                for _ in range(100):
                    stream = client.begin(COMPUTE, METADATA)
                    client.connection.send_data(stream, message, end_stream=True)
                    client.connection.reset_stream(stream)
                await client.flush()
                assert await works(address)
        assert await eventually(lambda: servicer.running == 0)
        assert servicer.most <= 100
