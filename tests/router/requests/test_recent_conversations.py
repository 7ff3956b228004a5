"""Conversations that come again: one task for all, which is that of a conversation made anew."""

from __future__ import annotations

import pytest
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.router.requests.recent_conversations import RecentConversations
from penstock.router.requests.resolved import digest_of
from penstock.rpc.errors import Fault
from penstock.tasks.kinds import GENERATE


def asked(content: str, *, body: bytes = b"", **fields: object) -> pb.GenerateTask:
    task = pb.GenerateTask(
        messages=[pb.Message(role=pb.ROLE_USER, content=content)],
        **fields,  # type: ignore[arg-type]  # names of fields
    )
    if body:
        task.wire_request.wire, task.wire_request.body = pb.WIRE_OPENAI_CHAT, body
    return task


def test_a_conversation_that_comes_again_gets_the_task_that_was_made_with_its_digest() -> None:
    recent = RecentConversations()
    first = recent.sized(asked("hello", max_tokens=8), is_translated=True)
    assert recent.sized(asked("hello", max_tokens=8), is_translated=True) is first
    assert first.task == pb.Task(generate=asked("hello", max_tokens=8))
    assert (first.kind, first.estimate) == (GENERATE, GENERATE.estimate(first.task))
    assert first.digest == digest_of(first.task)


@pytest.mark.parametrize(
    "other",
    [asked("hello!"), asked("hello", max_tokens=9), asked("hello", temperature=0.0), asked("x")],
)
def test_conversations_that_differ_in_anything_are_not_mixed(other: pb.GenerateTask) -> None:
    recent = RecentConversations()
    first = recent.sized(asked("hello"), is_translated=True)
    second = recent.sized(other, is_translated=True)
    assert second.task == pb.Task(generate=other)
    assert second.digest != first.digest


def test_the_bytes_of_a_request_count_only_from_those_who_translated_them() -> None:
    recent = RecentConversations()
    with_bytes = asked("hello", body=b"{}")
    for _ in range(2):
        believed = recent.sized(with_bytes, is_translated=True)
        foreign = recent.sized(with_bytes, is_translated=False)
        assert believed.task.generate.wire_request.body == b"{}"
        assert not foreign.task.generate.HasField("wire_request")
        assert foreign.digest == digest_of(pb.Task(generate=asked("hello")))


def test_what_the_caller_does_with_its_message_later_changes_no_task() -> None:
    recent = RecentConversations()
    message = asked("hello")
    first = recent.sized(message, is_translated=True)
    message.messages[0].content = "changed"
    assert first.task.generate.messages[0].content == "hello"
    assert recent.sized(message, is_translated=True).task.generate.messages[0].content == "changed"


def test_long_conversations_are_made_anew() -> None:
    recent = RecentConversations()
    long = asked("x" * RecentConversations.max_bytes)
    first = recent.sized(long, is_translated=True)
    assert recent.sized(long, is_translated=True) is not first
    assert first.digest == b""


def test_of_more_conversations_than_are_kept_the_oldest_is_made_anew() -> None:
    recent = RecentConversations()
    first = recent.sized(asked("first"), is_translated=True)
    for number in range(RecentConversations.max_conversations):
        recent.sized(asked(f"number {number}"), is_translated=True)
    assert recent.sized(asked("first"), is_translated=True) is not first


def test_a_conversation_that_cannot_be_is_refused_each_time() -> None:
    recent = RecentConversations()
    for _ in range(2):
        with pytest.raises(Fault) as refused:
            recent.sized(pb.GenerateTask(), is_translated=True)
        assert refused.value.field == "task.messages"
