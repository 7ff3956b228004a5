"""What a caller is shown: its own, and no other organisation's; see docs/reads.md for the table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.settings import RouterSettings, RoutesSection
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.service.store import embedded_store, open_store

from ..rig import MODEL, Rig, embed, fault_of
from ..routed import METADATA, OTHER_METADATA, SCOPED_METADATA, start
from ..scripted import ScriptedInstance

SMALL, LARGE = "small-1", "large"
TASK = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["x"]))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A router on a store with three models, two of them out of the scope of the scoped key."""
    routes = RoutesSection.model_validate(
        {"models": [{"name": name, "quality": 0.5} for name in (MODEL, SMALL, LARGE)]}
    )
    instances = {name: ScriptedInstance() for name in (MODEL, SMALL, LARGE)}
    async with (
        embedded_store(tmp_path / "store") as url,
        open_store(url) as store,
        start(RouterSettings(default_model=MODEL), store=store, routes=routes) as routed,
    ):
        for name, instance in instances.items():
            await routed.join(f"at-{name}", instance, name)
        yield Rig(routed, instances)


async def refusal(rig: Rig, method: str, request: Any, metadata: Any = OTHER_METADATA) -> Fault:
    """Why another organisation's caller does not get it, with its own request's text left out."""
    return await fault_of(getattr(rig.routed.stub, method)(request, metadata=metadata))


@pytest.mark.threat("cross-tenant read: explanation")
async def test_a_choice_is_explained_to_the_organisation_that_it_was_made_for(rig: Rig) -> None:
    request_id = (await rig.embed()).receipt.request_id
    request = pb.ExplainRouteRequest(request_id=request_id)
    shown = await rig.routed.stub.ExplainRoute(request, metadata=METADATA)
    assert shown.instance_id == f"at-{MODEL}"
    foreign = await refusal(rig, "ExplainRoute", request)
    unknown = await refusal(rig, "ExplainRoute", pb.ExplainRouteRequest(request_id="0" * 32))
    assert foreign.reason is unknown.reason is Reason.NOT_FOUND
    assert foreign.message.replace(request_id, "") == unknown.message.replace("0" * 32, "")


@pytest.mark.threat("cross-tenant write: feedback")
async def test_only_the_organisation_that_got_an_answer_judges_it(rig: Rig) -> None:
    request_id = (await rig.embed()).receipt.request_id
    before = rig.routed.models.quality(MODEL)
    verdict = pb.SendFeedbackRequest(request_id=request_id, correct=False)
    await rig.routed.stub.SendFeedback(verdict, metadata=OTHER_METADATA)
    assert rig.routed.models.quality(MODEL) == before
    await rig.routed.stub.SendFeedback(verdict, metadata=METADATA)
    assert rig.routed.models.quality(MODEL) < before


@pytest.mark.threat("cross-tenant read: jobs")
@pytest.mark.parametrize("method", ["GetJob", "CancelJob"])
async def test_a_job_is_there_for_its_organisation_only(rig: Rig, method: str) -> None:
    job = (await rig.routed.stub.SubmitJob(pb.SubmitJobRequest(task=TASK), metadata=METADATA)).job
    kind = getattr(pb, f"{method}Request")
    foreign = await refusal(rig, method, kind(id=job.id))
    unknown = await refusal(rig, method, kind(id="0" * 32))
    assert foreign.reason is unknown.reason is Reason.NOT_FOUND
    assert foreign.message.replace(job.id, "") == unknown.message.replace("0" * 32, "")


@pytest.mark.threat("cross-tenant read: watched jobs")
async def test_a_job_is_watched_by_its_organisation_only(rig: Rig) -> None:
    job = (await rig.routed.stub.SubmitJob(pb.SubmitJobRequest(task=TASK), metadata=METADATA)).job
    watch = rig.routed.stub.WatchJob(pb.WatchJobRequest(id=job.id), metadata=OTHER_METADATA)
    assert (await fault_of(watch.read())).reason is Reason.NOT_FOUND


@pytest.mark.threat("replayed submission of another tenant")
async def test_a_token_of_one_organisation_gives_no_job_to_another(rig: Rig) -> None:
    request = pb.SubmitJobRequest(task=TASK, idempotency_token="t")
    first = (await rig.routed.stub.SubmitJob(request, metadata=METADATA)).job
    again = (await rig.routed.stub.SubmitJob(request, metadata=METADATA)).job
    other = (await rig.routed.stub.SubmitJob(request, metadata=OTHER_METADATA)).job
    assert first.id == again.id != other.id


@pytest.mark.threat("cross-tenant write: runs")
async def test_a_run_is_cancelled_for_its_organisation_only(rig: Rig) -> None:
    cancel = pb.CancelRunRequest(run_id="run")
    await rig.routed.stub.CancelRun(cancel, metadata=OTHER_METADATA)
    await rig.embed(run_id="run")
    await rig.routed.stub.CancelRun(cancel, metadata=METADATA)
    assert (await fault_of(rig.embed(run_id="run"))).reason is Reason.RUN_CANCELLED


@pytest.mark.threat("enumeration of ids")
async def test_ids_that_open_something_are_long_and_random(rig: Rig) -> None:
    requests = {(await rig.embed(str(number))).receipt.request_id for number in range(20)}
    submit = pb.SubmitJobRequest(task=TASK)
    jobs = {(await rig.routed.stub.SubmitJob(submit, metadata=METADATA)).job.id for _ in range(20)}
    assert len(requests) == len(jobs) == 20
    for ids in (requests, jobs):
        assert min(len(each) for each in ids) * 4 >= 128
        for position in range(4):  # no part of them counts up
            assert len({each[8 * position : 8 * position + 8] for each in ids}) == 20


@pytest.mark.threat("read out of scope: models")
async def test_models_out_of_scope_are_not_listed(rig: Rig) -> None:
    async def listed(metadata: Any) -> list[str]:
        answer = await rig.routed.stub.ListModels(pb.ListModelsRequest(), metadata=metadata)
        return [model.name for model in answer.models]

    assert await listed(SCOPED_METADATA) == [SMALL]
    assert await listed(METADATA) == [LARGE, MODEL, SMALL]


@pytest.mark.threat("read out of scope: scoreboard")
async def test_the_scoreboard_has_no_instances_out_of_scope_and_no_addresses(rig: Rig) -> None:
    board = await rig.routed.stub.GetScoreboard(pb.GetScoreboardRequest(), metadata=SCOPED_METADATA)
    [row] = board.rows
    assert row.instance.id == f"at-{SMALL}"
    assert not row.instance.address
    assert not row.instance.batcher_address
    out_of_scope = pb.GetScoreboardRequest(model=LARGE)
    hidden = await refusal(rig, "GetScoreboard", out_of_scope, SCOPED_METADATA)
    unknown = await refusal(rig, "GetScoreboard", pb.GetScoreboardRequest(model="x"))
    assert hidden.message.replace(LARGE, "") == unknown.message.replace("'x'", "''")


@pytest.mark.threat("use out of scope: models")
async def test_a_model_out_of_scope_is_refused_as_one_that_is_not_there(rig: Rig) -> None:
    hidden = await refusal(rig, "Embed", embed(model=LARGE), SCOPED_METADATA)
    unknown = await refusal(rig, "Embed", embed(model="x"), SCOPED_METADATA)
    default = await refusal(rig, "Embed", embed(), SCOPED_METADATA)
    explained = await refusal(
        rig,
        "ExplainRoute",
        pb.ExplainRouteRequest(options=pb.CallOptions(model=LARGE), task=TASK),
        SCOPED_METADATA,
    )
    for fault in (hidden, unknown, default, explained):
        assert fault.reason is Reason.PERMISSION_DENIED
    assert hidden.message.replace(LARGE, "") == unknown.message.replace("'x'", "''")
    for model in (SMALL, "auto"):
        answer = await rig.routed.stub.Embed(embed(model=model), metadata=SCOPED_METADATA)
        assert answer.receipt.route.instance_id == f"at-{SMALL}"
