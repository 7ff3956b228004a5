"""Sessions and prompt prefixes: conversations stay where they are warm, and leave when that costs
more than it saves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.calls.affinity import (
    BLOCK_BYTES,
    PREFILL_SHARE,
    SESSION_SHARE,
    Affinity,
    PrefixIndex,
    Sessions,
    prefix_blocks,
)
from penstock.router.instances.registry import LEARNING
from penstock.router.routing.fleet import Fleet, Member
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call
from penstock.testkit.instance import EmptyInstance

from ..routed import Routed, StartRouter

MODEL = "m"
PROMPT = "You answer for a shop that sells bicycles. " * (4 * BLOCK_BYTES // 40)
SESSION_1, SESSION_12 = ("acme", "session-1"), ("acme", "session-12")


def conversation(*texts: str) -> inference_pb2.GenerateTask:
    return inference_pb2.GenerateTask(
        messages=[
            inference_pb2.Message(role=inference_pb2.ROLE_USER, content=text) for text in texts
        ]
    )


def test_sessions_match_exactly() -> None:
    sessions = Sessions()
    sessions.bind(SESSION_1, ("a", 0))
    assert sessions.instance_of(SESSION_1) == ("a", 0)
    assert sessions.instance_of(SESSION_12) == ("", 0)
    assert sessions.instance_of(("rival", "session-1")) == ("", 0)


def test_the_longest_unused_session_is_forgotten() -> None:
    sessions = Sessions(max_sessions=2)
    for name in ("x", "y", "x", "z"):
        sessions.bind(("acme", name), ("b", 0))
    assert [sessions.instance_of(("acme", name))[0] for name in "xyz"] == ["b", "", "b"]


def test_the_index_matches_the_longest_run_from_the_start() -> None:
    index = PrefixIndex()
    index.sent("a", ("h", "1", "2"))
    assert index.matched("a", ("h", "1", "9")) == 2
    assert index.matched("a", ("h", "1", "2", "3")) == 3
    assert index.matched("a", ("9", "h")) == 0
    assert index.matched("a", ()) == 0
    assert index.matched("b", ("h",)) == 0


def test_the_head_of_a_prefix_is_kept_longest() -> None:
    index = PrefixIndex(blocks_per_instance=4)
    index.sent("a", ("h", "1", "2"))
    index.sent("a", ("h", "3", "4"))
    assert index.matched("a", ("h", "3", "4")) == 3
    assert index.matched("a", ("h", "1", "2")) == 2
    index.sent("a", ("h", "5"))
    assert index.matched("a", ("h", "1", "2")) == 1
    index.forget("a")
    assert index.matched("a", ("h",)) == 0


def test_a_block_covers_everything_before_it() -> None:
    longer = prefix_blocks("m", conversation("x" * 5000, "y" * 5000))
    shorter = prefix_blocks("m", conversation("x" * 5000))
    assert longer[: len(shorter) - 1] == shorter[:-1]
    other_beginning = prefix_blocks("m", conversation("z" + "x" * 4999, "y" * 5000))
    assert not set(other_beginning) & set(longer)
    assert not set(prefix_blocks("other", conversation("x" * 5000))) & set(shorter)


@pytest.mark.parametrize(
    "change",
    [
        {"role": "ROLE_SYSTEM"},
        {"content": "other"},
        {"tool_call_id": "c1"},
        {"tool_calls": [inference_pb2.ToolCall(id="c1", name="find")]},
    ],
)
def test_everything_that_a_message_says_is_covered(change: dict[str, object]) -> None:
    task = conversation("x", "y")
    other = conversation("x", "y")
    other.messages[0].MergeFrom(inference_pb2.Message(**change))  # type: ignore[arg-type]
    assert prefix_blocks("m", task) != prefix_blocks("m", other)


def test_tools_are_a_part_of_the_prefix() -> None:
    with_tool = conversation("x")
    with_tool.tools.add(name="find")
    assert prefix_blocks("m", with_tool) != prefix_blocks("m", conversation("x"))


def fleet(*names: str) -> Fleet:
    made = Fleet()
    made.members = [Member(name) for name in names]
    return made


def test_a_conversation_is_smaller_where_its_prefix_is() -> None:
    affinity, known = Affinity(), fleet("a", "b")
    assert affinity.sizes(None, ("h", "1"), known) is None
    affinity.sent(None, ("h", "1"), known.members[0])
    assert affinity.sizes(None, ("h", "1"), known) == {"a": 1.0 - PREFILL_SHARE}
    assert affinity.sizes(None, ("h", "9"), known) == {"a": 1.0 - PREFILL_SHARE / 2}
    assert affinity.sizes(None, (), known) is None


def test_a_session_is_smaller_where_it_was_served_last() -> None:
    affinity, known = Affinity(), fleet("a", "b")
    affinity.sent(SESSION_1, (), known.members[0])
    affinity.sent(SESSION_1, (), known.members[1])
    assert affinity.sizes(SESSION_1, ("x",), known) == {"b": 1.0 - PREFILL_SHARE * SESSION_SHARE}
    assert affinity.sizes(SESSION_12, ("x",), known) is None


def test_an_instance_that_was_started_again_holds_nothing() -> None:
    affinity, known = Affinity(), fleet("a")
    affinity.sent(SESSION_1, ("h", "1"), known.members[0])
    known.members[0].renew(1.0)
    assert affinity.sizes(SESSION_1, ("h", "1"), known) is None
    affinity.sent(SESSION_1, ("h", "1"), known.members[0])
    assert affinity.sizes(SESSION_1, ("h", "1"), known) == {"a": 1.0 - PREFILL_SHARE}


def test_an_instance_that_has_gone_holds_nothing_when_another_takes_its_name() -> None:
    affinity, known = Affinity(), fleet("a")
    affinity.sent(None, ("h", "1"), known.members[0])
    affinity.forget("a")
    assert affinity.sizes(None, ("h", "1"), known) is None


class Chat(EmptyInstance):
    """Answers at once."""

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        result = inference_pb2.TaskResult(revision="1", compute_ms=1.0)
        result.generate.message.content = "yes"
        return inference_pb2.ComputeResponse(result=result)


@pytest.fixture
async def routed(start_router: StartRouter) -> AsyncIterator[Routed]:
    async with start_router(RouterSettings(default_model=MODEL)) as started:
        for name in "abcd":
            await started.join(name, Chat(), MODEL, concurrency=1)
            proven(started, name)
        # All count as equally fast: how long a connection took to open is not what is asked here.
        started.registry.fleets[MODEL].learning = replace(LEARNING, calm_band=1e9)
        yield started


def proven(routed: Routed, name: str) -> None:
    """Let an instance take as many requests as the others."""
    routed.registry.members[name].successes = 16


async def served_by(routed: Routed, prompt: str = "hello", **options: object) -> str:
    """The instance that serves a conversation."""
    request = pb.GenerateRequest(
        task=conversation(prompt),
        options=pb.CallOptions(**options),  # type: ignore[arg-type]
    )
    answer = await routed.stub.Generate(request, metadata=routed.metadata)
    return str(answer.receipt.route.instance_id)


async def test_calls_of_no_session_go_everywhere(routed: Routed) -> None:
    assert {await served_by(routed, f"question {number}") for number in range(60)} == set("abcd")


@pytest.mark.parametrize("options", [{"affinity_key": "session-1"}, {"run_id": "run-1"}])
async def test_a_session_stays_where_it_was(routed: Routed, options: dict[str, object]) -> None:
    first = await served_by(routed, **options)
    assert {await served_by(routed, f"question {number}", **options) for number in range(20)} == {
        first
    }


async def test_a_shared_prefix_stays_where_it_is_warm(routed: Routed) -> None:
    first = await served_by(routed, PROMPT + "first")
    assert {await served_by(routed, PROMPT + str(number)) for number in range(20)} == {first}


async def test_warmth_is_left_when_the_wait_exceeds_what_it_saves(routed: Routed) -> None:
    first = await served_by(routed, affinity_key="s")
    with routed.occupied(first, requests=3):
        assert await served_by(routed, affinity_key="s") != first


async def test_an_instance_that_registers_again_is_cold(routed: Routed) -> None:
    stayed = 0
    for number in range(20):
        prompt = f"{number} {PROMPT}"
        warm = await served_by(routed, prompt)
        await routed.registry.register(routed.registry.registered[warm])
        proven(routed, warm)
        stayed += await served_by(routed, prompt) == warm
    assert stayed < 20, "each of the four is as good as the others"


async def test_an_instance_that_has_gone_is_cold_when_it_comes_back(routed: Routed) -> None:
    stayed = 0
    for number in range(20):
        prompt = f"{number} {PROMPT}"
        warm = await served_by(routed, prompt)
        routed.selection.forget(warm)
        stayed += await served_by(routed, prompt) == warm
    assert stayed < 20
