"""Tools keep the order in which they come, until that changes."""

from __future__ import annotations

from dataclasses import replace

from penstock.prompts.conversation import Conversation, Policy, ToolSpec, Turn
from penstock.prompts.optimiser import Optimiser
from penstock.prompts.tool_orders import MAX_SETS, ToolOrders

ZOOM, FIND = ToolSpec("zoom", "looks", '{"type": "object"}'), ToolSpec("find", "", "{}")
IN_ORDER = (FIND, ZOOM)


def names(optimiser: Optimiser, *tools: ToolSpec) -> str:
    sent = Conversation((Turn("user", "go"),), tools)
    return " ".join(tool.name for tool in optimiser.optimise(sent).conversation.tools)


def test_tools_that_always_come_in_one_order_keep_it() -> None:
    optimiser = Optimiser(Policy())
    assert {names(optimiser, ZOOM, FIND) for _ in range(3)} == {"zoom find"}


def test_tools_are_in_one_order_from_the_first_change_on() -> None:
    optimiser = Optimiser(Policy())
    sent = ((ZOOM, FIND), (FIND, ZOOM), (ZOOM, FIND), (ZOOM, FIND))
    assert [names(optimiser, *tools) for tools in sent] == ["zoom find", *["find zoom"] * 3]


def test_other_tools_are_another_set() -> None:
    optimiser = Optimiser(Policy())
    for tools in ((ZOOM, FIND), (FIND, ZOOM)):
        names(optimiser, *tools)
    changed = replace(ZOOM, description="looks closer")
    assert names(optimiser, changed, FIND) == "zoom find"
    assert names(optimiser, ZOOM) == "zoom"


def test_the_order_of_one_owners_tools_shows_in_nothing_of_another() -> None:
    optimiser = Optimiser(Policy())
    one, other = optimiser.for_owner("acme"), optimiser.for_owner("other")
    for tools in ((ZOOM, FIND), (FIND, ZOOM)):
        names(one, *tools)
    assert names(one, ZOOM, FIND) == "find zoom"
    assert names(other, ZOOM, FIND) == "zoom find"


def test_the_sets_that_are_remembered_are_bounded() -> None:
    orders = ToolOrders()
    assert not orders.vary("acme", IN_ORDER, (ZOOM, FIND))
    assert orders.vary("acme", IN_ORDER, (FIND, ZOOM))
    for number in range(MAX_SETS):
        orders.vary(f"owner {number}", IN_ORDER, IN_ORDER)
    # The first was forgotten, the last one was not.
    assert not orders.vary("acme", IN_ORDER, (FIND, ZOOM))
    assert orders.vary(f"owner {MAX_SETS - 1}", IN_ORDER, (ZOOM, FIND))
