"""What callers are told who may not spend this now, by the rules of the file; and the ledger."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import pytest
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.testkit.eventually import eventually

from .calls import Api, Counted, chat, refused
from .instance import Serve, always, echo, embedded, said

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
BYPASS = {"bypass": True}


async def test_a_rate_that_is_used_up_says_when_to_come_back(
    api: Api, model: str, serve: Serve
) -> None:
    """Three an hour, three at once."""
    caller = api.caller("three-calls")
    async with serve(echo, model) as instance:
        for number in range(3):
            await caller.generate(chat(f"x {number}"), model=model, cache=BYPASS)
        told = await refused(caller.generate(chat("one more"), model=model, cache=BYPASS))
        assert len(instance.asked) == 3
    assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
    assert "three-an-hour" in told.message
    assert told.retry_s is not None
    assert 1_100 < told.retry_s <= 1_200


async def test_a_budget_that_is_spent_refuses_before_anything_is_computed(
    api: Api, model: str, serve: Serve
) -> None:
    """500 tokens a day; a call of 400 leaves 100."""
    caller = api.caller("few-tokens")
    async with serve(always(said("x", 300, 100)), model) as instance:
        await caller.generate(chat("x" * 200, max_tokens=100), model=model, cache=BYPASS)

        async def booked() -> None:
            rows = await api.ledger("few-tokens", model)
            assert rows["few-tokens-a-day"] == Counted(400)

        await eventually(booked)
        told = await refused(
            caller.generate(chat("x" * 40, max_tokens=100), model=model, cache=BYPASS)
        )
        assert len(instance.asked) == 1
    assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "BUDGET_EXHAUSTED")
    assert "few-tokens-a-day" in told.message
    # a rolling day moves in sixty steps, and nothing comes back before the first has passed
    assert told.retry_s is not None
    assert told.retry_s > 3_600
    # 100 are left, and the input may take 46 of them: 30 for its letters, 16 around a message
    hint = int(told.message.split("max_tokens of ")[1].split()[0])
    assert hint == 100 - 46


async def test_a_call_that_leaves_its_length_open_gets_what_the_budget_affords(
    api: Api, model: str, serve: Serve
) -> None:
    """100 micro-dollars a day: 26 at most for the input, so that 36 output tokens are affordable of
    the model's 50."""
    caller = api.caller("poor")
    async with serve(echo, model) as instance:
        await caller.generate(chat("hello"), model=model, cache=BYPASS)
    (asked,) = instance.asked
    assert 30 < asked.task.generate.max_tokens < 40


async def test_a_call_larger_than_any_window_never_fits(api: Api, model: str, serve: Serve) -> None:
    caller = api.caller("tiny")
    async with serve(echo, model):
        told = await refused(
            caller.generate(chat("x" * 100, max_tokens=5), model=model, cache=BYPASS)
        )
    assert (told.code, told.reason) == ("FAILED_PRECONDITION", "NEVER_FITS")
    assert "ten-tokens-a-day" in told.message
    assert told.retry_s is None


async def test_a_rule_of_money_refuses_a_model_without_a_price(api: Api) -> None:
    caller = api.caller("no-prices")
    told = await refused(caller.generate(chat("x"), model="chat-unpriced", cache=BYPASS))
    assert (told.code, told.reason, told.field) == (
        "FAILED_PRECONDITION",
        "NO_PRICE",
        "options.model",
    )
    assert "money-of-any-model" in told.message


async def test_a_rule_in_shadow_counts_and_refuses_nothing(
    api: Api, model: str, serve: Serve
) -> None:
    caller = api.caller("shadowed")
    async with serve(echo, model):
        await caller.generate(chat("x"), model=model, cache=BYPASS)

    async def booked() -> None:
        assert (await api.ledger("shadowed", model))["nothing-a-day"] == Counted(1)

    await eventually(booked)


async def test_a_call_may_have_a_ceiling_of_its_own(api: Api, model: str, serve: Serve) -> None:
    """The call may cost 3 bytes and 16 around them of input, and 10 output tokens at 2."""
    caller = api.caller()
    async with serve(echo, model) as instance:
        priced = {"model": model, "cache": BYPASS}
        told = await refused(
            caller.generate(chat("abc", max_tokens=10), **priced, max_cost_microusd=20)
        )
        assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "COST_CEILING")
        assert told.retry_s is None
        assert not instance.asked
        await caller.generate(chat("abc", max_tokens=10), **priced, max_cost_microusd=100)


async def test_levels_count_their_own_subjects(api: Api, model: str, serve: Serve) -> None:
    """One call an hour for the user `cat` of the guild, a budget for whoever is tagged `beta`."""
    ann, cat, dan = api.caller("guild-ann"), api.caller("guild-cat"), api.caller("guild-dan")
    async with serve(echo, model):
        await cat.generate(chat("a"), model=model, cache=BYPASS)
        told = await refused(cat.generate(chat("b"), model=model, cache=BYPASS))
        assert told.reason == "RATE_LIMITED"
        assert "one-for-cat" in told.message
        for number in range(2):
            await ann.generate(chat(f"c {number}"), model=model, cache=BYPASS)
        await dan.generate(chat("d"), model=model, cache=BYPASS)

    async def booked() -> None:
        rows = await api.ledger("guild", model, user="dan", tags=["beta"])
        assert rows["beta-tokens"] == Counted(10)
        assert "one-for-cat" not in rows

    await eventually(booked)


async def test_a_drained_organisation_is_let_in_again(api: Api, model: str, serve: Serve) -> None:
    caller = api.caller("drained")

    async def drain(on: bool) -> None:
        request = pb.DrainOrganisationRequest(
            organisation="drained", drain=on, reason="the black box asks"
        )
        await api.operators.DrainOrganisation(request, metadata=api.operator)

    async with serve(echo, model) as instance:
        await drain(True)
        told = await refused(caller.generate(chat("a"), model=model, cache=BYPASS))
        assert (told.code, told.reason) == ("PERMISSION_DENIED", "DRAINED")
        assert not instance.asked
        await drain(False)
        await caller.generate(chat("b"), model=model, cache=BYPASS)


async def test_many_calls_at_once_never_overshoot_a_budget(
    api: Api, model: str, serve: Serve
) -> None:
    """1,000 tokens a day for the organisation `adjusted`; a call may spend 100 and does: 24 for its
    digits, 16 around the message, 60 of output.
    """
    caller = api.caller("adjusted")

    async def one(number: int) -> bool:
        task = chat(f"{number:024}", max_tokens=60)
        try:
            await caller.generate(task, model=model, cache=BYPASS)
        except Exception as error:
            assert "adjustable" in str(error)
            return False
        return True

    async with serve(always(said("x", 40, 60)), model, concurrency=32):
        passed = sum(await asyncio.gather(*(one(number) for number in range(30))))
    assert 8 <= passed <= 10

    async def booked() -> None:
        assert (await api.ledger("adjusted", model))["adjustable"] == Counted(100 * passed)

    await eventually(booked)


async def test_calls_from_a_lease_never_overshoot_a_budget(
    api: Api, model: str, serve: Serve
) -> None:
    """1,000 tokens a day for the organisation `leasing`; a call may spend 50 and does."""
    caller = api.caller("leasing")
    text = "x" * 30
    answer = embedded(1.0)
    answer.usage.input_tokens = 50
    passed = 0
    async with serve(always(answer), model):
        with contextlib.suppress(grpc.aio.AioRpcError):
            while passed < 40:
                await caller.embed(text, model=model, cache=BYPASS)
                passed += 1
    assert 15 <= passed <= 20

    async def booked() -> None:
        assert (await api.ledger("leasing", model))["lendable"] == Counted(50 * passed)

    await eventually(booked)
