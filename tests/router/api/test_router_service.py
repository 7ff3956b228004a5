"""The public service over real gRPC: what comes back, what is refused and by which field, what it
tells of itself.
"""

from __future__ import annotations

import time

import grpc
import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.build import ROUTER
from penstock.rpc.call import Call
from penstock.rpc.peers.stream import connect, open_channel
from penstock.rpc.reasons import Reason

from ..rig import MODEL, Rig, embed, fault_of
from ..routed import METADATA, TASKS
from ..scripted import Behaviour


async def test_an_answer_comes_with_its_receipt(rig: Rig) -> None:
    answer = await rig.embed(run_id="r1", step="plan")
    assert list(answer.embeddings[0].values) == [1.0]
    receipt = answer.receipt
    assert (receipt.model, receipt.revision, receipt.run_id) == (MODEL, "1-abc", "r1")
    assert receipt.route.instance_id in rig.instances
    assert receipt.route.reason == "least_added_delay: lowest score"
    assert (receipt.route.candidates, receipt.route.attempts) == (2, 1)
    assert receipt.total_ms > 0
    seen = rig.seen_call()
    assert (seen.principal.organisation, seen.principal.key_id) == ("acme", "k1")
    assert (seen.run_id, seen.step) == ("r1", "plan")


async def test_a_stream_ends_with_its_receipt(rig: Rig) -> None:
    parts = await rig.stream()
    assert "".join(part.chunk.delta for part in parts) == "one two "
    assert [part.HasField("receipt") for part in parts] == [False, False, False, True]
    assert parts[-1].receipt.route.instance_id in rig.instances


async def test_calls_may_come_over_the_item_stream_too(rig: Rig) -> None:
    peer = connect(rig.routed.address, ROUTER, metadata=METADATA)
    urgent = Call(priority=common_pb2.PRIORITY_CRITICAL, deadline_s=time.monotonic() + 20)
    answer = await peer.call("Embed", embed(), urgent)
    assert answer.receipt.route.instance_id in rig.instances
    assert rig.seen_call().priority == common_pb2.PRIORITY_HIGH, "the key's ceiling"
    await peer.close()


@pytest.mark.fault(8)
@pytest.mark.parametrize(
    ("request_", "field", "reason"),
    [
        (pb.EmbedRequest(), "texts", Reason.INVALID_ARGUMENT),
        (embed("x", " "), "texts[1]", Reason.INVALID_ARGUMENT),
        (embed(run_id="x" * 129), "options.run_id", Reason.INVALID_ARGUMENT),
        (embed(priority=9), "options.priority", Reason.INVALID_ARGUMENT),
        (embed(max_cost_microusd=-1), "options.max_cost_microusd", Reason.INVALID_ARGUMENT),
        (embed(min_quality=1.1), "options.min_quality", Reason.INVALID_ARGUMENT),
        (embed(model="gpt-9"), "options.model", Reason.NO_MODEL),
    ],
)
async def test_bad_input_names_its_field_and_reaches_nobody(
    rig: Rig, request_: pb.EmbedRequest, field: str, reason: Reason
) -> None:
    fault = await fault_of(rig.routed.stub.Embed(request_, metadata=METADATA))
    assert (fault.reason, fault.field) == (reason, field)
    assert fault.message.startswith(f"{field}: ")
    assert not any(instance.calls for instance in rig.instances.values())
    assert (await rig.embed()).embeddings, "the next call is served"


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("Classify", pb.ClassifyRequest(), "texts"),
        ("Generate", pb.GenerateRequest(), "task.messages"),
        ("Infer", pb.InferRequest(), "task.inputs"),
        ("Rerank", pb.RerankRequest(documents=["a"]), "query"),
        ("Rerank", pb.RerankRequest(query="q"), "documents"),
        ("Rerank", pb.RerankRequest(query="q", documents=["a", ""]), "documents[1]"),
        ("CancelRun", pb.CancelRunRequest(), "run_id"),
        ("SendFeedback", pb.SendFeedbackRequest(), "request_id"),
        ("ExplainRoute", pb.ExplainRouteRequest(), "task"),
    ],
)
async def test_each_method_names_the_field_of_its_own_request(
    rig: Rig, method: str, request_: object, field: str
) -> None:
    call = getattr(rig.routed.stub, method)(request_, metadata=METADATA)
    fault = await fault_of(call)
    assert (fault.reason, fault.field) == (Reason.INVALID_ARGUMENT, field)


async def test_documents_come_back_by_relevance_with_a_receipt(rig: Rig) -> None:
    request = pb.RerankRequest(query="long", documents=["a", "ccc", "bb"], top_n=2)
    answer = await rig.routed.stub.Rerank(request, metadata=METADATA)
    assert [(one.index, one.score) for one in answer.ranking] == [(1, 3.0), (2, 2.0)]
    assert answer.receipt.route.instance_id in {"a", "b"}


async def test_a_stream_that_cannot_be_is_refused_by_its_field(rig: Rig) -> None:
    parts = rig.routed.stub.GenerateStream(pb.GenerateStreamRequest(), metadata=METADATA)
    fault = await fault_of(parts.read())
    assert (fault.reason, fault.field) == (Reason.INVALID_ARGUMENT, "task.messages")


@pytest.mark.fault(8)
async def test_invalid_utf8_is_the_callers_fault(rig: Rig) -> None:
    async with open_channel(rig.routed.address) as channel:
        raw = channel.unary_unary("/penstock.api.router.v1.RouterService/Embed")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await raw(b"\x12\x02\xff\xfe", metadata=METADATA)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_models_are_listed_with_their_tasks_and_ready_instances(rig: Rig) -> None:
    loading = inference_pb2.Model(name="later", state=inference_pb2.MODEL_STATE_LOADING)
    known = rig.routed.registry.registered["a"].models[0]
    known.max_input_tokens = 512
    await rig.routed.registry.heartbeat("a", common_pb2.LoadReport(), [known, loading])
    rig.routed.registry.members["b"].lost = True
    listed = await rig.routed.stub.ListModels(pb.ListModelsRequest(), metadata=METADATA)
    assert [
        (row.name, tuple(row.tasks), row.max_input_tokens, row.ready_instances)
        for row in listed.models
    ] == [("later", (), 0, 0), (MODEL, TASKS, 512, 1)]


async def test_the_score_board_shows_every_instance_with_its_signals(rig: Rig) -> None:
    await rig.embed()
    board = await rig.routed.stub.GetScoreboard(pb.GetScoreboardRequest(), metadata=METADATA)
    assert board.strategy == "least_added_delay"
    assert board.branches == {"lowest score": 1}
    assert {row.instance.id for row in board.rows} == {"a", "b"}
    assert sorted(row.picks for row in board.rows) == [0, 1]
    assert [signal.name for signal in board.rows[0].candidate.signals] == [
        "in_flight_own",
        "in_flight_others",
        "speed",
        "concurrency",
    ]


async def test_the_score_board_of_a_model_that_nobody_serves_is_refused(rig: Rig) -> None:
    request = pb.GetScoreboardRequest(model="gone")
    fault = await fault_of(rig.routed.stub.GetScoreboard(request, metadata=METADATA))
    assert fault.reason is Reason.NO_MODEL


async def test_a_request_is_explained_as_it_was_decided(rig: Rig) -> None:
    answer = await rig.embed()
    rig.routed.registry.members[answer.receipt.route.instance_id].leaving = True
    request = pb.ExplainRouteRequest(request_id=answer.receipt.request_id)
    why = await rig.routed.stub.ExplainRoute(request, metadata=METADATA)
    assert why.instance_id == answer.receipt.route.instance_id
    assert (why.strategy, why.branch) == ("least_added_delay", "lowest score")
    assert {row.instance_id for row in why.candidates} == {"a", "b"}
    assert not any(row.filtered_reason for row in why.candidates)


async def test_a_request_that_has_not_been_made_is_explained_and_not_counted(rig: Rig) -> None:
    rig.routed.registry.members["a"].leaving = True
    rig.routed.registry.members["a"].settled = False
    task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["hello"]))
    request = pb.ExplainRouteRequest(task=task)
    why = await rig.routed.stub.ExplainRoute(request, metadata=METADATA)
    assert (why.instance_id, why.estimated_tokens) == ("b", 3)
    assert {row.instance_id: row.filtered_reason for row in why.candidates} == {
        "a": "draining",
        "b": "",
    }
    assert rig.routed.selection.branches == {}
    assert not any(instance.calls for instance in rig.instances.values())


async def test_a_request_that_this_router_does_not_remember_cannot_be_explained(rig: Rig) -> None:
    request = pb.ExplainRouteRequest(request_id="unheard")
    fault = await fault_of(rig.routed.stub.ExplainRoute(request, metadata=METADATA))
    assert (fault.reason, fault.field) == (Reason.NOT_FOUND, "request_id")


async def test_without_the_store_calls_are_served_and_their_receipts_say_so(rig: Rig) -> None:
    rig.routed.registry.shared = False
    answer = await rig.embed()
    assert list(answer.receipt.notes) == ["registry not shared: the store is unavailable"]


async def test_a_fault_of_an_instance_names_the_field_of_the_public_request(rig: Rig) -> None:
    rig.all_do(Behaviour.REFUSES_TEXT)
    fault = await fault_of(rig.embed("odd"))
    assert (fault.reason, fault.field, fault.message) == (
        Reason.INVALID_ARGUMENT,
        "texts[0]",
        "texts[0]: is odd",
    )
