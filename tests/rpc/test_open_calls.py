"""Calls in flight end once their callers would be accepted no more; the others go on."""

from __future__ import annotations

import asyncio

import pytest
from penstock.rpc.auth import CallerMetadata
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, unauthenticated
from penstock.rpc.open_calls import OpenCalls
from penstock.rpc.reasons import Reason


class Accepted:
    """Accepts the callers that are named."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.asked: list[str | bytes] = []

    def authenticate(self, metadata: CallerMetadata) -> Call:
        self.asked.append(metadata["authorization"])
        if metadata["authorization"] not in self.names:
            raise unauthenticated("not known")
        return Call()


def sent_by(who: str) -> CallerMetadata:
    return CallerMetadata({"authorization": who})


async def hang(calls: OpenCalls, who: str) -> None:
    with calls.enter(sent_by(who)):
        await asyncio.Event().wait()


async def begun(*tasks: asyncio.Task[None]) -> None:
    """Let tasks run until they wait."""
    for _ in tasks:
        await asyncio.sleep(0)


@pytest.mark.threat("call in flight of a caller who is accepted no more")
async def test_calls_of_a_refused_caller_end_with_the_reason_and_others_go_on() -> None:
    accepted = Accepted("ann", "bob")
    calls = OpenCalls(accepted.authenticate)
    ann, bob = (asyncio.create_task(hang(calls, who)) for who in ("ann", "bob"))
    await begun(ann, bob)
    assert calls.end_refused() == 0
    accepted.names.remove("ann")
    assert calls.end_refused() == 1
    with pytest.raises(Fault) as ended:
        await ann
    assert ended.value.reason is Reason.UNAUTHENTICATED
    assert ann.cancelling() == 0
    assert (len(calls), bob.done()) == (1, False)
    bob.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bob
    assert len(calls) == 0


async def test_a_caller_who_leaves_is_cancelled_as_ever() -> None:
    calls = OpenCalls(Accepted("ann").authenticate)
    task = asyncio.create_task(hang(calls, "ann"))
    await begun(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(calls) == 0


async def test_a_call_that_fails_by_itself_keeps_its_failure() -> None:
    calls = OpenCalls(Accepted("ann").authenticate)
    with pytest.raises(ValueError, match="own"), calls.enter(sent_by("ann")):
        raise ValueError("own")
    assert len(calls) == 0


async def test_a_caller_of_many_calls_is_authenticated_once_each_time() -> None:
    accepted = Accepted("ann", "bob")
    calls = OpenCalls(accepted.authenticate)
    tasks = [asyncio.create_task(hang(calls, who)) for who in ("ann", "bob", "ann", "ann")]
    await begun(*tasks)
    calls.end_refused()
    assert sorted(accepted.asked) == ["ann", "bob"]
    accepted.names.clear()
    assert calls.end_refused() == len(tasks)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, Fault) for outcome in outcomes)
