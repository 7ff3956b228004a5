"""`eventually`: what ends the wait, what keeps waiting, and what the message says at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from penstock.testkit.eventually import eventually, eventually_sync


async def test_a_check_is_evaluated_until_its_assertions_hold() -> None:
    numbers = iter(range(10))

    def reached_three() -> None:
        assert next(numbers) == 3

    assert await eventually(reached_three, every_s=0) is None
    assert next(numbers) == 4


async def test_the_value_of_a_coroutine_function_is_awaited_and_returned() -> None:
    results = iter([[], [], ["row"]])

    async def rows() -> list[str]:
        return next(results)

    assert await eventually(rows, every_s=0) == ["row"]


async def test_none_from_a_lambda_does_not_hold() -> None:
    known: Iterator[str | None] = iter([None, "value"])
    assert await eventually(lambda: next(known), every_s=0) == "value"


async def test_the_message_has_the_last_failure() -> None:
    def never() -> None:
        raise AssertionError("the lamp is off")

    expected = r"never did not hold within 0 s \(1 evaluations\).*the lamp is off"
    with pytest.raises(AssertionError, match=expected):
        await eventually(never, 0)


async def test_the_message_has_the_last_falsy_value() -> None:
    with pytest.raises(AssertionError, match="it returned 0"):
        await eventually(lambda: 0, 0)


async def test_other_exceptions_propagate_unless_they_are_named_in_not_yet() -> None:
    results = iter([KeyError("early"), None])

    def look() -> bool:
        if failure := next(results):
            raise failure
        return True

    assert await eventually(look, every_s=0, not_yet=(KeyError,))
    with pytest.raises(StopIteration):
        eventually_sync(look, every_s=0)


def test_the_sync_version_waits_in_the_same_way() -> None:
    numbers = iter(range(10))
    assert eventually_sync(lambda: next(numbers) > 3, every_s=0)
    with pytest.raises(AssertionError, match="did not hold within 0 s"):
        eventually_sync(lambda: False, 0)
