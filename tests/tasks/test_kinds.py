"""What holds for each kind of task: the table of properties, checks by field, sizes, pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.tasks.conversation_size import TURN_TOKENS
from penstock.tasks.kind import (
    END_TOKENS,
    MAX_TEXTS,
    OVERHEAD_TOKENS,
    Estimate,
    Kind,
    Task,
    TaskResult,
    text_tokens,
)
from penstock.tasks.kinds import CLASSIFY, EMBED, GENERATE, INFER, KINDS, RERANK, kind_of
from penstock.tasks.rerank import ranking_of
from penstock.tasks.tokens import token_bound

ALL = tuple(KINDS.values())


def embed(*texts: str) -> Task:
    return Task(embed=pb.EmbedTask(texts=texts))


def classify(*texts: str, **more: object) -> Task:
    return Task(classify=pb.ClassifyTask(texts=texts, **more))  # type: ignore[arg-type]


def generate(*messages: pb.Message, **more: object) -> Task:
    return Task(generate=pb.GenerateTask(messages=messages, **more))  # type: ignore[arg-type]


def says(role: pb.Role = pb.ROLE_USER, content: str = "hello", **more: object) -> pb.Message:
    return pb.Message(role=role, content=content, **more)  # type: ignore[arg-type]


def infer(*sizes: int) -> Task:
    """A task of tensors of so many bytes each."""
    return Task(infer=pb.InferTask(inputs=[pb.Tensor(data=b"x" * size) for size in sizes]))


def rerank(query: str, *documents: str, top_n: int = 0) -> Task:
    return Task(rerank=pb.RerankTask(query=query, documents=documents, top_n=top_n))


class Properties(NamedTuple):
    """A row of the table of kinds."""

    operation: str
    repeatable: bool
    conversational: bool
    cheap: bool
    open_ended: bool
    streams: bool


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("embed", EMBED, Properties("embeddings", True, False, True, False, False)),
        ("classify", CLASSIFY, Properties("invoke", True, False, False, False, False)),
        ("generate", GENERATE, Properties("chat", False, True, False, True, True)),
        ("infer", INFER, Properties("invoke", True, False, True, False, False)),
        ("rerank", RERANK, Properties("rerank", True, False, False, False, False)),
    ],
)
def test_a_kind_has_these_properties(name: str, kind: Kind, expected: Properties) -> None:
    assert KINDS[name] is kind
    assert kind.name == name
    assert expected == (
        kind.operation,
        kind.repeatable,
        kind.conversational,
        kind.cheap,
        kind.open_ended,
        kind.streams,
    )


def test_every_kind_of_the_contract_is_listed() -> None:
    contract = Task.DESCRIPTOR.oneofs_by_name["task"].fields
    assert set(KINDS) == {field.name for field in contract}


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        (embed("a"), EMBED),
        (classify("a"), CLASSIFY),
        (generate(), GENERATE),
        (infer(), INFER),
        (rerank("a", "b"), RERANK),
    ],
)
def test_a_tasks_kind_is_found_by_the_field_that_is_set(task: Task, kind: Kind) -> None:
    assert kind_of(task) is kind


def test_an_empty_task_is_refused_by_its_field() -> None:
    with pytest.raises(Fault, match="task: is empty") as refused:
        kind_of(Task())
    assert (refused.value.reason, refused.value.field) == (Reason.INVALID_ARGUMENT, "task")


TOO_MANY = ["x"] * (MAX_TEXTS + 1)


@pytest.mark.parametrize(
    ("task", "field", "why"),
    [
        (embed(), "texts", "needs at least one text"),
        (embed(*TOO_MANY), "texts", "has 1025 texts; at most 1024 are allowed"),
        (embed("a", ""), "texts[1]", "is empty"),
        (embed("a", "b", " \n\t"), "texts[2]", "is empty"),
        (classify(), "texts", "needs at least one text"),
        (classify(*TOO_MANY), "texts", "has 1025 texts; at most 1024 are allowed"),
        (classify("", "b"), "texts[0]", "is empty"),
        (generate(), "messages", "needs at least one message"),
        (
            generate(says(), pb.Message(content="no role")),
            "messages[1].role",
            "is missing or unknown; say one of ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL",
        ),
        (generate(says(content="")), "messages[0].content", "is empty"),
        (generate(says(pb.ROLE_TOOL, "")), "messages[0].tool_call_id", "is empty"),
        (generate(says(), temperature=-0.1), "temperature", "must lie between 0 and 2"),
        (generate(says(), temperature=2.1), "temperature", "must lie between 0 and 2"),
        (generate(says(), temperature=float("nan")), "temperature", "must lie between 0 and 2"),
        (generate(says(), top_p=0.0), "top_p", "must lie above 0 and at most at 1"),
        (generate(says(), top_p=1.1), "top_p", "must lie above 0 and at most at 1"),
        (infer(), "inputs", "needs at least one tensor"),
        (rerank(" ", "a"), "query", "is empty"),
        (rerank("q"), "documents", "needs at least one text"),
        (rerank("q", "a", ""), "documents[1]", "is empty"),
        (rerank("q", *TOO_MANY), "documents", "has 1025 texts; at most 1024 are allowed"),
    ],
)
def test_a_task_that_cannot_be_is_refused_by_its_field(task: Task, field: str, why: str) -> None:
    with pytest.raises(Fault) as refused:
        kind_of(task).validate(task, "at.")
    assert (refused.value.reason, refused.value.field) == (
        Reason.INVALID_ARGUMENT,
        f"at.{field}",
    )
    assert refused.value.message == f"at.{field}: {why}"


@pytest.mark.parametrize(
    "task",
    [
        embed(*TOO_MANY[1:]),
        classify("a", examples=[], top_k=3),
        generate(says(pb.ROLE_SYSTEM), says(), says(pb.ROLE_ASSISTANT)),
        generate(says(pb.ROLE_ASSISTANT, "", tool_calls=[pb.ToolCall(id="c")])),
        generate(says(pb.ROLE_TOOL, "", tool_call_id="c")),
        generate(says(), temperature=0.0, top_p=1.0),
        generate(says(), temperature=2.0, top_p=0.1),
        infer(0),
        rerank("q", *TOO_MANY[1:], top_n=2000),
    ],
)
def test_a_task_at_its_bounds_passes(task: Task) -> None:
    kind_of(task).validate(task, "")


@pytest.mark.parametrize(
    ("kind", "inner", "public"),
    [
        (EMBED, "task.embed.texts[3]", "texts[3]"),
        (RERANK, "task.rerank.documents[3]", "documents[3]"),
        (CLASSIFY, "task.classify.texts[3]", "texts[3]"),
        (GENERATE, "task.generate.messages[0].role", "task.messages[0].role"),
        (INFER, "task.infer.inputs", "task.inputs"),
    ],
)
def test_an_inner_field_has_a_public_name(kind: Kind, inner: str, public: str) -> None:
    assert kind.public_field(inner) == public


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
@pytest.mark.parametrize("field", ["", "options.model", "task", "task.other.texts", "texts[0]"])
def test_any_other_field_keeps_its_name(kind: Kind, field: str) -> None:
    assert kind.public_field(field) == field


TWO_TEXTS = text_tokens("one two") + text_tokens("three")


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (embed("one two", "three"), Estimate(2, TWO_TEXTS, 0)),
        (embed(), Estimate(1, 1, 0)),
        (classify("one two", "three"), Estimate(2, TWO_TEXTS, 0)),
        (
            classify("one two", examples=[pb.LabelledExample(text="three", label="x")]),
            Estimate(1, TWO_TEXTS, 0),
        ),
        (generate(says(content="x" * 40), says(content="y" * 3)), Estimate(1, 9 + 1 + 8, 0)),
        (generate(says(content="hi"), max_tokens=50), Estimate(1, 1 + 4, 50)),
        (infer(400, 44), Estimate(1, 111, 0)),
        (infer(0), Estimate(1, 1, 0)),
    ],
)
def test_a_task_is_estimated(task: Task, expected: Estimate) -> None:
    found = kind_of(task).estimate(task)
    assert found._replace(input_bound=0) == expected


@pytest.mark.wire_case(23)
@pytest.mark.parametrize(
    ("task", "texts"),
    [
        (embed("one", "two", "three"), ["one", "two", "three"]),
        (classify("one", examples=[pb.LabelledExample(text="three")]), ["one", "three"]),
        (generate(says(content="one"), says(content="two")), ["one", "two"]),
    ],
)
def test_input_is_bounded_by_script_and_what_a_template_puts_around_each_part(
    task: Task, texts: list[str]
) -> None:
    expected = sum(map(token_bound, texts)) + OVERHEAD_TOKENS * len(texts)
    found = kind_of(task).estimate(task)
    assert (found.input_bound, found.counted) == (expected, False)


@pytest.mark.wire_case(23)
@pytest.mark.parametrize(
    ("task", "tokens", "overhead"),
    [
        (embed("one two", "three"), 3 + 2 * END_TOKENS, 2),
        (rerank("q r", "a", "b c"), 3 + 2 * 2 + 4 * END_TOKENS, 4),
        (generate(says(content="one two"), says(content="three")), 3 + 2 * TURN_TOKENS, 2),
    ],
)
def test_a_tokenizer_that_is_named_counts(task: Task, tokens: int, overhead: int) -> None:
    found = kind_of(task).estimate(task, lambda text: len(text.split()))
    bound = tokens + overhead * OVERHEAD_TOKENS
    if task.HasField("generate"):
        bound -= 2 * TURN_TOKENS
    assert (found.input_tokens, found.input_bound, found.counted) == (tokens, bound, True)


@pytest.mark.wire_case(19)
def test_an_estimate_counts_tools_schemas_calls_reasoning_images_and_files() -> None:
    task = generate(says(content="hi"))
    known = [GENERATE.estimate(task)]
    asked = task.generate
    changes: list[Callable[[], object]] = [
        lambda: asked.tools.add(name="find", parameters_json='{"type": "object"}'),
        lambda: asked.response_format.MergeFrom(pb.ResponseFormat(schema_json='{"type": "array"}')),
        lambda: asked.messages[0].tool_calls.add(name="find", arguments_json='{"a": 1}'),
        lambda: asked.messages[0].reasoning.add(text="let me think", state=b"s" * 40),
        lambda: asked.messages[0].parts.add(text="two words"),
        lambda: asked.messages[0].parts.add(image=pb.Image(url="https://a/b.png")),
        lambda: asked.messages[0].parts.add(file=pb.File(data=b"%PDF" * 400)),
        lambda: asked.messages[0].parts.add(file=pb.File(file_id="file-1")),
    ]
    for change in changes:
        change()
        now = GENERATE.estimate(task)
        assert now.input_tokens > known[-1].input_tokens
        assert now.input_bound > known[-1].input_bound
        known.append(now)


TEXTS = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=12)


def computed(task: Task) -> TaskResult:
    """The answer of a model that knows each text's length and first letter."""
    result = TaskResult()
    for text in task.embed.texts:
        result.embed.embeddings.add(values=[float(len(text)), float(ord(text[0]))])
    for text in task.classify.texts:
        label = f"{text} of {len(task.classify.examples)} by {task.classify.top_k}"
        result.classify.classifications.add().labels.add(label=label)
    return result


@given(TEXTS, st.integers(1, 13), st.sampled_from([EMBED, CLASSIFY]))
def test_the_answers_of_the_pieces_merge_to_the_answer_of_the_whole(
    texts: list[str], max_rows: int, kind: Kind
) -> None:
    examples = [pb.LabelledExample(text="e", label="l")] * 2
    task = embed(*texts) if kind is EMBED else classify(*texts, examples=examples, top_k=3)
    pieces, merged = kind.split(task, max_rows), TaskResult()
    kind.merge(task, [computed(piece) for piece in pieces], merged)
    assert merged == computed(task)
    rows = [kind.rows(piece) for piece in pieces]
    assert rows == [kind.estimate(piece).rows for piece in pieces]
    assert sum(rows) == len(texts)
    assert max(rows) <= max_rows
    assert len(pieces) == -(-len(texts) // max_rows), "no more pieces than that takes"


@pytest.mark.parametrize(
    "task", [embed("a", "b"), classify("a", "b"), generate(says(), says()), infer(4, 4)]
)
def test_a_task_that_needs_no_splitting_is_one_piece_itself(task: Task) -> None:
    [piece] = kind_of(task).split(task, 2)
    assert piece is task


@pytest.mark.parametrize("task", [generate(says(), says()), infer(4, 4)])
def test_one_piece_of_work_is_never_split_and_has_no_parts_to_merge(task: Task) -> None:
    assert kind_of(task).split(task, 1) == [task]
    with pytest.raises(Fault, match="has no parts") as refused:
        kind_of(task).merge(task, [TaskResult()], TaskResult())
    assert refused.value.reason is Reason.INTERNAL


@given(TEXTS, st.integers(1, 13), st.integers(0, 13))
def test_the_ranking_of_the_pieces_merges_to_the_ranking_of_the_whole(
    documents: list[str], max_rows: int, top_n: int
) -> None:
    task = rerank("q", *documents, top_n=top_n)
    pieces, merged = RERANK.split(task, max_rows), TaskResult()
    RERANK.merge(task, [ranked(piece) for piece in pieces], merged)
    assert merged == ranked(task)
    assert sum(RERANK.rows(piece) for piece in pieces) == len(documents)
    assert max(RERANK.rows(piece) for piece in pieces) <= max_rows


def ranked(task: Task) -> TaskResult:
    """The answer of a model that likes long documents."""
    scores = [float(len(document)) for document in task.rerank.documents]
    return TaskResult(rerank=ranking_of(scores, task.rerank.top_n))


def test_a_ranking_has_the_best_first_and_equal_ones_in_their_order() -> None:
    ranking = ranking_of([0.5, 2.0, 0.5, -1.0], 3).ranking
    assert [(one.index, one.score) for one in ranking] == [(1, 2.0), (0, 0.5), (2, 0.5)]


def test_a_reranking_reads_its_query_with_every_document() -> None:
    once, thrice = rerank("q r s", "a"), rerank("q r s", "a", "a", "a")
    assert RERANK.estimate(thrice).input_tokens == 3 * RERANK.estimate(once).input_tokens
    assert RERANK.estimate(thrice).input_bound >= 3 * len("q r s" + "a")


def classified(*scores: float) -> TaskResult:
    """Labels of one text after the other, the best label first, the second half as sure."""
    result = TaskResult()
    for score in scores:
        labels = result.classify.classifications.add().labels
        labels.add(label="best", score=score)
        labels.add(label="second", score=score / 2)
    return result


def test_a_classification_is_as_sure_as_its_least_certain_text() -> None:
    assert CLASSIFY.confidence(classified(0.9, 0.25, 0.5)) == 0.25
    assert CLASSIFY.confidence(classified()) == 1.0
    unlabelled = classified(0.5)
    unlabelled.classify.classifications.add()
    assert CLASSIFY.confidence(unlabelled) == 0.5


@pytest.mark.parametrize("kind", [EMBED, GENERATE, INFER], ids=lambda kind: kind.name)
def test_other_answers_do_not_say_how_sure_they_are(kind: Kind) -> None:
    assert kind.confidence(TaskResult()) is None


def answered(reason: int = pb.FINISH_REASON_STOP, *calls: str) -> TaskResult:
    """An answer that ended so, with calls of these tools."""
    result = TaskResult()
    result.generate.message.content = "" if calls else "an answer"
    result.generate.finish_reason = reason  # type: ignore[assignment]
    for name in calls:
        result.generate.message.tool_calls.add(name=name, arguments_json="{}")
    return result


TOOLS = [pb.Tool(name="look", read_only=True), pb.Tool(name="pay")]


@pytest.mark.parametrize(
    ("task", "result", "why"),
    [
        (generate(), answered(), ""),
        (generate(), answered(pb.FINISH_REASON_TOOL_CALLS), ""),
        (generate(), answered(pb.FINISH_REASON_LENGTH), "truncated"),
        (generate(), answered(pb.FINISH_REASON_FILTERED), "filtered"),
        (generate(), answered(pb.FINISH_REASON_UNSPECIFIED), "not ended"),
        (generate(tools=TOOLS), answered(pb.FINISH_REASON_STOP, "look"), ""),
        (
            generate(tools=TOOLS),
            answered(pb.FINISH_REASON_STOP, "look", "pay"),
            "tool call with side effects",
        ),
        (generate(), answered(pb.FINISH_REASON_STOP, "look"), "tool call with side effects"),
        (generate(temperature=0.5), answered(), ""),
        (generate(temperature=0.75), answered(), "temperature"),
        (embed("a"), TaskResult(), ""),
        (classify("a"), TaskResult(), ""),
        (infer(4), TaskResult(), ""),
    ],
)
def test_an_answer_is_not_kept_because(task: Task, result: TaskResult, why: str) -> None:
    assert kind_of(task).unstorable_because(task, result, 0.5, asked_for=False) == why


def test_a_caller_that_asks_for_reuse_accepts_sampled_answers_and_nothing_else() -> None:
    hot = generate(temperature=2.0)
    assert GENERATE.unstorable_because(hot, answered(), 0.5, asked_for=True) == ""
    cut = answered(pb.FINISH_REASON_LENGTH)
    assert GENERATE.unstorable_because(hot, cut, 0.5, asked_for=True) == "truncated"
