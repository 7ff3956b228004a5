"""A request as it will be served: its size, its digest, and short texts that come again."""

from __future__ import annotations

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.requests.resolved import (
    RecentTexts,
    ResolvedRequest,
    SizedTask,
    digest_of,
    in_public_words,
    sized,
    sized_any,
)
from penstock.rpc.errors import Fault, invalid, unavailable
from penstock.tasks.kind import Estimate, Kind
from penstock.tasks.kinds import CLASSIFY, EMBED, GENERATE, INFER
from penstock.testkit.chats import chat

Task = inference_pb2.Task


def embed_task(*texts: str) -> Task:
    return Task(embed=inference_pb2.EmbedTask(texts=texts))


def resolved(kind: Kind, **policy: object) -> ResolvedRequest:
    """A request of 70 input tokens."""
    options = pb.CallOptions(cache=pb.CachePolicy(**policy))  # type: ignore[arg-type]
    return ResolvedRequest(options, kind, Task(), "m", Estimate(1, 70))


def test_a_task_is_validated_and_measured_by_its_kind() -> None:
    task = embed_task("where is my card?")
    assert sized(EMBED, task, "") == SizedTask(EMBED, task, EMBED.estimate(task))
    assert sized_any(chat("hello")).kind is GENERATE


@pytest.mark.parametrize(
    ("task", "field"),
    [
        (Task(), "task"),
        (embed_task("a", " "), "task.embed.texts[1]"),
        (Task(generate=inference_pb2.GenerateTask()), "task.generate.messages"),
        (Task(infer=inference_pb2.InferTask()), "task.infer.inputs"),
    ],
)
def test_a_task_of_any_kind_is_refused_with_the_whole_path_of_its_field(
    task: Task, field: str
) -> None:
    with pytest.raises(Fault) as refused:
        sized_any(task)
    assert refused.value.field == field


def test_the_digest_tells_tasks_apart() -> None:
    digests = {digest_of(task) for task in (embed_task("a"), embed_task("b"), embed_task("a", "b"))}
    assert len(digests) == 3
    assert digest_of(embed_task("a")) in digests


@pytest.mark.parametrize(
    ("policy", "may"),
    [({}, True), ({"bypass": True}, False), ({"no_store": True}, False), ({"tags": ["t"]}, True)],
)
def test_an_answer_may_be_kept_unless_the_caller_forbids_it(
    policy: dict[str, object], may: bool
) -> None:
    assert resolved(EMBED, **policy).may_bring_answers is may


def test_a_request_of_another_task_has_no_digest_of_the_first() -> None:
    request = resolved(EMBED)._replace(digest=digest_of(embed_task("a")))
    other = request.with_task(embed_task("b"))
    assert (other.task, other.digest) == (embed_task("b"), b"")
    assert other._replace(task=request.task, digest=request.digest) == request


def test_a_text_that_comes_again_gets_the_task_that_was_made_with_its_digest() -> None:
    recent = RecentTexts()
    first, again = recent.sized(["where is my card?"]), recent.sized(["where is my card?"])
    assert again is first
    assert first.task == embed_task("where is my card?")
    assert (first.kind, first.estimate) == (EMBED, EMBED.estimate(first.task))
    assert first.digest == digest_of(first.task)
    assert recent.sized(["where is my key?"]).digest != first.digest


def test_several_texts_are_measured_each_time_and_not_mixed_with_single_ones() -> None:
    recent = RecentTexts()
    several = recent.sized(["a b", "c"])
    assert (list(several.task.embed.texts), several.estimate.rows) == (["a b", "c"], 2)
    assert several.digest == b""
    assert recent.sized(["a b", "c"]) is not several
    assert list(recent.sized(["a b"]).task.embed.texts) == ["a b"]


def test_long_texts_are_made_anew() -> None:
    recent = RecentTexts()
    longest = "x" * RecentTexts.max_characters
    assert recent.sized([longest]) is recent.sized([longest])
    assert recent.sized([longest + "x"]) is not recent.sized([longest + "x"])


def test_of_more_texts_than_are_kept_the_oldest_is_made_anew() -> None:
    recent = RecentTexts()
    first = recent.sized(["first"])
    for number in range(RecentTexts.max_texts - 1):
        recent.sized([f"text {number}"])
    assert recent.sized(["first"]) is first
    recent.sized(["one more"])
    assert recent.sized(["first"]) is not first


@pytest.mark.parametrize(
    ("texts", "field"), [([], "texts"), ([" "], "texts[0]"), (["a", ""], "texts[1]")]
)
def test_texts_that_cannot_be_are_refused_each_time(texts: list[str], field: str) -> None:
    recent = RecentTexts()
    for _ in range(2):
        with pytest.raises(Fault) as refused:
            recent.sized(texts)
        assert refused.value.field == field


@pytest.mark.parametrize(
    ("kind", "inner", "public"),
    [
        (EMBED, "task.embed.texts[3]", "texts[3]"),
        (CLASSIFY, "task.classify.texts[3]", "texts[3]"),
        (GENERATE, "task.generate.messages[0].role", "task.messages[0].role"),
        (INFER, "task.infer.inputs", "task.inputs"),
    ],
)
def test_a_fault_of_an_instance_names_the_field_as_the_public_request_does(
    kind: Kind, inner: str, public: str
) -> None:
    fault = in_public_words(kind, invalid(inner, "is odd"))
    assert (fault.field, fault.message) == (public, f"{public}: is odd")
    assert fault.reason == invalid(inner, "").reason


def test_the_rest_of_a_fault_is_kept_and_one_of_other_fields_is_left_as_it_is() -> None:
    busy = unavailable("task.embed.texts: busy", retry_after_s=2.5)
    busy.field = "task.embed.texts"
    public = in_public_words(EMBED, busy)
    assert (public.reason, public.retry_after_s) == (busy.reason, 2.5)
    other = invalid("options.model", "is odd")
    assert in_public_words(EMBED, other) is other
