"""GenerateStream: the order of pieces, the receipt at the end, what breaks a stream on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.testkit.eventually import eventually

from .calls import Caller, Counted, broken, chat
from .instance import Asked, Refuse, Serve, said

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
BYPASS = {"bypass": True}
Pieces = AsyncIterator[inference_pb2.GenerateChunk | inference_pb2.TaskResult]


def piece(text: str) -> inference_pb2.GenerateChunk:
    return inference_pb2.GenerateChunk(delta=text)


def text_of(messages: list[pb.GenerateStreamResponse]) -> str:
    return "".join(message.chunk.delta for message in messages)


async def receipt_of(call: Any) -> common_pb2.Receipt:
    """The receipt of a stream that is read message by message."""
    while not (message := await call.read()).HasField("receipt"):
        continue
    return message.receipt


async def test_pieces_come_in_order_and_the_receipt_alone_at_the_end(caller: Caller) -> None:
    prompt = "five words come as pieces"
    messages = [item async for item in caller.stream(chat(prompt), model="chat", cache=BYPASS)]
    *pieces, last = messages
    texts = [item.chunk.delta for item in pieces if item.chunk.delta]
    assert texts == ["five", " words", " come", " as", " pieces"]
    ends = [item.chunk.finish_reason for item in pieces if item.chunk.finish_reason]
    assert ends == [inference_pb2.FINISH_REASON_STOP]
    assert not any(item.chunk.finish_reason for item in pieces[: len(texts)])
    assert not any(item.HasField("receipt") for item in pieces)
    assert not last.HasField("chunk")
    assert last.receipt.usage == common_pb2.Usage(input_tokens=9, output_tokens=5)
    assert last.receipt.cost.paid_microusd == 9 * 3 + 5 * 15
    assert last.receipt.batch == common_pb2.BatchReceipt(
        batch_size=1, release_reason="instance_free"
    )
    assert last.receipt.route.instance_id == "provider"


async def test_a_piece_leaves_before_the_next_is_made(
    caller: Caller, model: str, serve: Serve
) -> None:
    go_on = asyncio.Event()

    async def script(asked: Asked) -> Pieces:
        yield piece("first")
        await go_on.wait()
        yield piece(" second")
        yield said("first second")

    async with serve(script, model):
        call = caller.stream(chat("hello"), model=model, cache=BYPASS)
        assert (await call.read()).chunk.delta == "first"
        go_on.set()
        assert (await call.read()).chunk.delta == " second"
        assert (await receipt_of(call)).model == model


async def test_whoever_leaves_a_stream_ends_it_at_the_instance_and_pays_what_was_said(
    caller: Caller, model: str, serve: Serve
) -> None:
    async def script(asked: Asked) -> Pieces:
        yield piece("x" * 40)
        await asyncio.Event().wait()

    async with serve(script, model) as instance:
        call = caller.stream(chat("a prompt of 24 letters .."), model=model, cache=BYPASS)
        await call.read()
        call.cancel()
        await eventually(lambda: len(instance.cancelled) == 1)

        async def charged() -> None:
            # 25 letters in and 40 out, four a token; 1 micro-dollar a token in, 2 a token out
            ledger = await caller.api.ledger(caller.key, model)
            assert ledger["all-tokens"] == Counted(10 + 10)
            assert ledger["all-money"] == Counted(10 + 2 * 10)

        await eventually(charged)


async def test_a_provider_whose_caller_leaves_loses_the_connection(caller: Caller) -> None:
    provider = caller.api.system.provider
    with provider.slow(0.0, word_s=0.05):
        provider.caller_left.clear()
        call = caller.stream(chat("word " * 200), model="chat", cache=BYPASS)
        await call.read()
        call.cancel()
        await asyncio.wait_for(provider.caller_left.wait(), 5)


async def test_a_deadline_ends_a_stream_between_its_pieces(
    caller: Caller, model: str, serve: Serve
) -> None:
    async def script(asked: Asked) -> Pieces:
        yield piece("first")
        await asyncio.Event().wait()

    async with serve(script, model) as instance:
        call = caller.stream(chat("hello"), timeout=0.5, model=model, cache=BYPASS)
        messages, told = await broken(call)
        assert text_of(messages) == "first"
        assert told.code == "DEADLINE_EXCEEDED"
        await eventually(lambda: len(instance.cancelled) == 1)
        assert 0 < instance.asked[0].context.remaining_ms < 600


async def test_a_cut_stream_ends_in_an_error_and_is_charged_for_what_it_said(
    caller: Caller, model: str, serve: Serve
) -> None:
    async def script(asked: Asked) -> Pieces:
        yield piece("y" * 20)
        # and no result: the instance ends the stream as if that were all

    async with serve(script, model):
        messages, told = await broken(caller.stream(chat("12345678"), model=model, cache=BYPASS))
    assert text_of(messages) == "y" * 20
    assert (told.code, told.reason) == ("UNAVAILABLE", "STREAM_CUT")

    async def charged() -> None:
        ledger = await caller.api.ledger(caller.key, model)
        assert ledger["all-tokens"] == Counted(8 + 5)
        assert ledger["all-money"] == Counted(8 + 2 * 5)

    await eventually(charged)


async def test_before_its_first_piece_a_stream_is_tried_elsewhere(
    caller: Caller, model: str, serve: Serve
) -> None:
    failed: list[str] = []

    async def script(asked: Asked) -> Pieces:
        if not failed:
            failed.append("once")
            raise Refuse(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_OVERLOADED")
        yield piece("here")
        yield said("here")

    async with serve(script, model), serve(script, model):
        messages = [item async for item in caller.stream(chat("x"), model=model, cache=BYPASS)]
    assert text_of(messages) == "here"
    assert messages[-1].receipt.route.attempts == 2


async def test_after_its_first_piece_it_is_not_unless_another_can_go_on(
    caller: Caller, model: str, serve: Serve
) -> None:
    asked_twice: list[Asked] = []

    async def script(asked: Asked) -> Pieces:
        asked_twice.append(asked)
        yield piece("half")
        raise Refuse(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_RESET")

    async with serve(script, model), serve(script, model):
        messages, told = await broken(caller.stream(chat("x"), model=model, cache=BYPASS))
    assert text_of(messages) == "half"
    assert (told.code, told.reason) == ("UNAVAILABLE", "UPSTREAM_RESET")
    assert len(asked_twice) == 1


async def test_an_instance_that_resumes_says_the_rest(
    caller: Caller, model: str, serve: Serve
) -> None:
    turns: list[list[str]] = []

    async def script(asked: Asked) -> Pieces:
        messages = asked.task.generate.messages
        turns.append([message.content for message in messages])
        if messages[-1].role == inference_pb2.ROLE_USER:
            yield piece("the first half, ")
            raise Refuse(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_RESET")
        yield piece("the second half")
        yield said("the second half", input_tokens=9, output_tokens=4)

    able = {"capabilities": ["resumes"]}
    async with serve(script, model, **able), serve(script, model, **able):
        call = caller.stream(chat("tell all"), model=model, cache=BYPASS)
        messages = [item async for item in call]
    assert text_of(messages) == "the first half, the second half"
    assert turns == [["tell all"], ["tell all", "the first half, "]]
    receipt = messages[-1].receipt
    assert "resumed after 16 characters: UPSTREAM_RESET" in receipt.notes
    # what the first has used is an estimate: 6 tokens in, 16 letters out
    assert receipt.usage == common_pb2.Usage(
        input_tokens=9 + 6, output_tokens=4 + 4, estimated=True
    )
    assert receipt.cost.estimated


async def test_a_long_stream_stays_within_what_is_held_for_it(
    caller: Caller, model: str, serve: Serve
) -> None:
    """The lease covers 32 calls of 50 output tokens, the model's longest answer, and 17 of input;
    then it is enlarged.
    """
    go_on, tokens = asyncio.Event(), 4_000

    async def script(asked: Asked) -> Pieces:
        yield piece("z" * 4 * tokens)
        await go_on.wait()
        yield said("z" * 4 * tokens, output_tokens=tokens)

    async with serve(script, model):
        call = caller.stream(chat("x"), model=model, cache=BYPASS)
        await call.read()
        held = (await caller.api.ledger(caller.key, model))["all-tokens"].held
        go_on.set()
        receipt = await receipt_of(call)
    assert tokens > 32 * (50 + 17)
    assert held >= tokens + 17
    assert receipt.usage.output_tokens == tokens


async def test_an_open_length_becomes_the_models_longest(
    caller: Caller, model: str, serve: Serve
) -> None:
    async def script(asked: Asked) -> Pieces:
        yield piece(str(asked.task.generate.max_tokens))
        yield said("50")

    async with serve(script, model):
        messages = [item async for item in caller.stream(chat("x"), model=model, cache=BYPASS)]
    assert text_of(messages) == "50"
