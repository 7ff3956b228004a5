"""The command as a person sees it, in a terminal 80 columns wide, against a scripted router."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from penstock.testkit.router import HANG, KEY, ScriptedRouter, serving_router

from .terminal import CTRL_C, CTRL_D, in_terminal

COLUMNS = 80
LONG = "a long text that does not fit on one line of a terminal of eighty columns, whatever it says"


@pytest.fixture
def router() -> ScriptedRouter:
    return ScriptedRouter()


@pytest.fixture
async def address(router: ScriptedRouter) -> AsyncIterator[str]:
    async with serving_router(router) as served:
        yield served


async def test_a_conversation_is_kept_until_it_is_begun_anew(
    router: ScriptedRouter, address: str
) -> None:
    async with in_terminal(
        "chat", "--system", "be short", PENSTOCK_ADDRESS=address, PENSTOCK_KEY=KEY
    ) as screen:
        await screen.wait_for("you> ")
        screen.type("first\n")
        await screen.wait_for("you> ", 2)
        screen.type("second\n")
        await screen.wait_for("you> ", 3)
        screen.type("/new\n")
        await screen.wait_for("you> ", 4)
        screen.type("third\n")
        await screen.wait_for("you> ", 5)
        screen.type(CTRL_D)
        assert await screen.ended() == 0
    assert screen.text.count("abc") == 3
    assert [[turn.content for turn in turns] for turns in router.conversations] == [
        ["be short", "first"],
        ["be short", "first", "abc", "second"],
        ["be short", "third"],
    ]


async def test_ctrl_c_stops_an_answer_and_the_conversation_goes_on(
    router: ScriptedRouter, address: str
) -> None:
    async with in_terminal("chat", PENSTOCK_ADDRESS=address, PENSTOCK_KEY=KEY) as screen:
        await screen.wait_for("you> ")
        screen.type(f"{HANG}\n")
        await screen.wait_for("a", 2)
        await router.hanging.wait()
        screen.type(CTRL_C)
        await screen.wait_for("the turn is forgotten")
        await router.cancelled.wait()
        await screen.wait_for("you> ", 2)
        screen.type("next\n")
        await screen.wait_for("abc")
        screen.type("/quit\n")
        assert await screen.ended() == 0
    assert [turn.content for turn in router.conversations[-1]] == ["next"]


async def test_a_failed_turn_is_told_and_the_conversation_goes_on(address: str) -> None:
    async with in_terminal("chat", PENSTOCK_ADDRESS=address, PENSTOCK_KEY="psk-wrong") as screen:
        await screen.wait_for("you> ")
        screen.type("hello\n")
        await screen.wait_for("the API key is not known (check --key")
        await screen.wait_for("you> ", 2)
        screen.type(CTRL_D)
        assert await screen.ended() == 0


@pytest.mark.parametrize(
    "arguments", [("models",), ("embed", LONG, "short"), ("rerank", "q", LONG, "b"), ("--help",)]
)
async def test_nothing_is_wider_than_the_terminal_and_no_word_is_lost(
    address: str, arguments: tuple[str, ...]
) -> None:
    flags = {"PENSTOCK_ADDRESS": address, "PENSTOCK_KEY": KEY}
    async with in_terminal(*arguments, columns=COLUMNS, **flags) as screen:
        assert await screen.ended() == 0
        await screen.wait_for("\n")
    lines = screen.text.splitlines()
    assert max(map(len, lines)) <= COLUMNS
    if LONG in arguments:
        folded = " ".join(line.strip() for line in lines)
        assert all(word in folded for word in LONG.split())
