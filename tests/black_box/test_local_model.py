"""Embed, Classify and Infer on the real model: from the public port to receipt and ledger."""

from __future__ import annotations

import math
import re
import struct

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.testkit.eventually import eventually

from .calls import TIMEOUT_S, Caller, Counted, options, refused
from .configuration import EMBEDDER

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
BYPASS = {"bypass": True}


async def test_a_text_becomes_a_vector_of_length_one(caller: Caller) -> None:
    (vector,) = (await caller.embed("where is my order")).embeddings
    assert len(vector.values) == 384
    assert math.isclose(math.hypot(*vector.values), 1.0, abs_tol=1e-5)


async def test_vectors_come_in_the_order_of_the_texts_whatever_their_neighbours(
    caller: Caller,
) -> None:
    texts = ["a short one", "a text that is a good deal longer than the others are", "a third"]
    together = (await caller.embed(*texts, cache=BYPASS)).embeddings
    alone = [(await caller.embed(text, cache=BYPASS)).embeddings[0] for text in texts]
    assert [list(row.values) for row in together] == [list(row.values) for row in alone]


async def test_a_receipt_says_who_served_why_and_what_it_cost(caller: Caller) -> None:
    receipt = (await caller.embed("a text of six", run_id="run-1", step="search")).receipt
    assert re.fullmatch("[0-9a-f]{32}", receipt.request_id)
    assert re.fullmatch("[0-9a-f]{32}", receipt.trace_id)
    assert (receipt.run_id, receipt.model) == ("run-1", EMBEDDER)
    assert re.fullmatch("1-[0-9a-f]{12}", receipt.revision)
    assert receipt.cache.outcome == common_pb2.CACHE_OUTCOME_MISS
    assert receipt.route == common_pb2.RouteReceipt(
        instance_id="onnx-1",
        reason="least_added_delay: lowest score",
        score=receipt.route.score,
        attempts=1,
        candidates=1,
    )
    assert receipt.route.score > 0
    assert receipt.batch == common_pb2.BatchReceipt(batch_size=1, release_reason="instance_free")
    assert 0 < receipt.compute_ms < receipt.total_ms
    assert receipt.usage == common_pb2.Usage(input_tokens=6)
    # 6 tokens at 20,000 micro-dollars a million, rounded up
    assert receipt.cost == common_pb2.Cost(paid_microusd=1, full_price_microusd=1)
    assert not receipt.savings
    assert not receipt.notes
    assert not receipt.escalations


async def test_a_batch_larger_than_the_batchers_is_split_and_joined_in_order(
    caller: Caller,
) -> None:
    texts = [f"text number {number}" for number in range(40)]
    answer = await caller.embed(*texts, cache=BYPASS)
    assert len(answer.embeddings) == 40
    last = (await caller.embed(texts[-1], cache=BYPASS)).embeddings[0]
    assert list(answer.embeddings[-1].values) == list(last.values)
    assert (answer.receipt.batch.batch_size, answer.receipt.batch.release_reason) == (32, "split")
    assert answer.receipt.usage.input_tokens == 40 * 5


async def test_labels_are_chosen_by_examples_best_first(caller: Caller) -> None:
    answer = await caller.classify(
        ["my parcel has not come", "the card was stolen"],
        {"delivery": "when will my package arrive", "card": "my debit card is lost"},
        top_k=2,
    )
    chosen = [[row.label for row in text.labels] for text in answer.classifications]
    assert chosen == [["delivery", "card"], ["card", "delivery"]]
    for text in answer.classifications:
        assert math.isclose(sum(row.score for row in text.labels), 1.0, abs_tol=1e-5)
    assert answer.receipt.batch.batch_size == 2


async def test_one_label_comes_unless_more_are_asked_for(caller: Caller) -> None:
    answer = await caller.classify(
        ["the train was late"], {"travel": "trains and stations", "food": "bread and soup"}
    )
    assert [row.label for row in answer.classifications[0].labels] == ["travel"]


def int64(name: str, *values: int) -> inference_pb2.Tensor:
    """A tensor of one row."""
    data = struct.pack(f"<{len(values)}q", *values)
    return inference_pb2.Tensor(name=name, datatype="INT64", shape=[1, len(values)], data=data)


HELLO = [
    int64("input_ids", 101, 7592, 102),
    int64("attention_mask", 1, 1, 1),
    int64("token_type_ids", 0, 0, 0),
]
"""`hello` as the tokenizer writes it."""


async def test_tensors_in_and_the_embedding_of_the_same_text_out(caller: Caller) -> None:
    task = inference_pb2.InferTask(inputs=HELLO)
    request = pb.InferRequest(task=task, options=options(cache=BYPASS))
    answer = await caller.api.router.Infer(request, metadata=caller.metadata, timeout=TIMEOUT_S)
    (tensor,) = answer.result.outputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == (
        "sentence_embedding",
        "FP32",
        [1, 384],
    )
    embedded = (await caller.embed("hello", cache=BYPASS)).embeddings[0].values
    assert struct.unpack("<384f", tensor.data) == pytest.approx(list(embedded), abs=1e-6)


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        (HELLO[:2], "task.inputs"),
        ([*HELLO[:2], int64("colour", 1, 2, 3)], "task.inputs[2].name"),
        (
            [*HELLO[:2], inference_pb2.Tensor(name="token_type_ids", datatype="FP99", shape=[1])],
            "task.inputs[2].datatype",
        ),
    ],
)
async def test_a_bad_tensor_is_named_as_the_public_request_calls_it(
    caller: Caller, inputs: list[inference_pb2.Tensor], field: str
) -> None:
    request = pb.InferRequest(task=inference_pb2.InferTask(inputs=inputs))
    fault = await refused(caller.api.router.Infer(request, metadata=caller.metadata))
    assert (fault.code, fault.field) == ("INVALID_ARGUMENT", field)


async def test_a_text_longer_than_the_model_is_named_with_both_lengths(caller: Caller) -> None:
    fault = await refused(caller.embed("fine", "word " * 300))
    assert (fault.code, fault.field) == ("INVALID_ARGUMENT", "texts[1]")
    assert "302" in fault.message
    assert "256" in fault.message


async def test_labels_without_examples_need_a_model_with_a_head(caller: Caller) -> None:
    fault = await refused(caller.classify(["hello"], {}))
    assert (fault.code, fault.field) == ("INVALID_ARGUMENT", "examples")


async def test_a_model_is_asked_only_for_what_it_serves(caller: Caller) -> None:
    request = pb.GenerateRequest(options=options(model=EMBEDDER))
    request.task.messages.add(role=inference_pb2.ROLE_USER, content="hello")
    fault = await refused(caller.api.router.Generate(request, metadata=caller.metadata))
    assert (fault.code, fault.field) == ("INVALID_ARGUMENT", "task")
    assert "generate" in fault.message


async def test_what_was_served_stands_in_the_ledger_and_nothing_is_held(caller: Caller) -> None:
    tokens = [
        (await caller.embed(text, cache=BYPASS)).receipt.usage.input_tokens
        for text in ("one", "two and three", "a text of some more words")
    ]

    async def settled() -> None:
        ledger = await caller.api.ledger(caller.key, EMBEDDER)
        assert ledger == {
            "all-requests": Counted(3),
            "all-tokens": Counted(sum(tokens)),
            "all-money": Counted(3),
        }

    assert tokens == [3, 5, 8]
    await eventually(settled)


async def test_a_failed_call_costs_nothing(caller: Caller) -> None:
    await refused(caller.embed("word " * 300))

    async def given_back() -> None:
        ledger = await caller.api.ledger(caller.key, EMBEDDER)
        assert set(ledger.values()) == {Counted(0)}

    await eventually(given_back)


async def test_models_are_listed_with_what_they_do_and_who_is_ready(caller: Caller) -> None:
    answer = await caller.api.router.ListModels(pb.ListModelsRequest(), metadata=caller.metadata)
    names = [row.name for row in answer.models]
    assert names == sorted(names)
    rows = {row.name: row for row in answer.models}
    assert rows[EMBEDDER] == pb.AvailableModel(
        name=EMBEDDER,
        tasks=[
            inference_pb2.TASK_KIND_EMBED,
            inference_pb2.TASK_KIND_CLASSIFY,
            inference_pb2.TASK_KIND_INFER,
            inference_pb2.TASK_KIND_RERANK,
        ],
        ready_instances=1,
        max_input_tokens=256,
        input_microusd_per_mtok=20_000,
        priced=True,
    )
    assert rows["chat"] == pb.AvailableModel(
        name="chat",
        tasks=[inference_pb2.TASK_KIND_GENERATE],
        ready_instances=1,
        max_input_tokens=128_000,
        input_microusd_per_mtok=3_000_000,
        output_microusd_per_mtok=15_000_000,
        priced=True,
    )
    assert rows["vectors"].tasks == [inference_pb2.TASK_KIND_EMBED]
