"""What a started run has cost: every send of its calls, by step and by what it was for."""

from __future__ import annotations

import pytest
from penstock.api.common.v1 import common_pb2, run_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.router.v1 import runs_pb2
from penstock.prices.prices import ModelPrice, Prices
from penstock.router.admission.run_costs import costs_of_answer, costs_of_try
from penstock.router.runs.run_costs import cost_of_runs
from penstock.router.stages import Spent
from penstock.rpc.errors import Fault, internal
from penstock.rpc.reasons import Reason
from penstock.testkit.eventually import eventually

from ..rig import fault_of
from ..routed import OTHER_METADATA, SCOPED_METADATA
from .conftest import FLOOR, INPUT_TOKENS, LARGE, SMALL, RunRig, Worker

ANSWER, REUSED, LOOK_UP, ESCALATION, HEDGE, FAILED_TRY, JOB = (
    getattr(run_pb2, f"RUN_COST_KIND_{name}")
    for name in ("ANSWER", "REUSED", "LOOK_UP", "ESCALATION", "HEDGE", "FAILED_TRY", "JOB")
)
PICOUSD = 10**6
Row = tuple[str, str, int, int]


def rows(answer: runs_pb2.GetRunCostResponse) -> dict[Row, int]:
    """Pico-dollars by run, step, kind and calls."""
    return {
        (row.run_id, row.step, row.kind, row.amount.calls): _picousd(row) for row in answer.costs
    }


def _picousd(row: run_pb2.RunCost) -> int:
    return row.amount.microusd * PICOUSD - row.rounding_picousd


async def settled(rig: RunRig, run_id: str, calls: int) -> runs_pb2.GetRunCostResponse:
    """What a run has cost, once so many calls are settled."""

    async def cost() -> runs_pb2.GetRunCostResponse:
        answer = await rig.cost(run_id)
        assert answer.total.calls == calls, answer
        return answer

    return await eventually(cost, timeout_s=20)


async def test_costs_are_shown_by_run_and_step_and_come_to_the_exact_sum(run_rig: RunRig) -> None:
    await run_rig.routed.join("a", Worker(), SMALL)
    root = await run_rig.start()
    child = await run_rig.start(parent=root)
    for number in range(3):
        await run_rig.embed(root, "plan", text=f"text {number}")
    await run_rig.embed(child, "search")
    answer = await settled(run_rig, root, 4)
    assert rows(answer) == {
        (root, "plan", ANSWER, 3): 3 * 400_000,
        (child, "search", ANSWER, 1): 400_000,
    }
    assert [run.id for run in answer.runs] == [root, child]
    assert [row.model for row in answer.costs] == [SMALL, SMALL]
    assert answer.total == run_pb2.RunAmount(calls=4, tokens=4 * INPUT_TOKENS, microusd=2)
    assert (answer.rounding_picousd, answer.estimated_microusd) == (400_000, 0)
    assert rows(await run_rig.cost(child)) == {(child, "search", ANSWER, 1): 400_000}


async def test_a_retry_costs_what_the_failed_try_may_be_billed(run_rig: RunRig) -> None:
    silent = Fault(Reason.UPSTREAM_SILENT, "nothing came")
    refused = Fault(Reason.UPSTREAM_OVERLOADED, "too much to do")
    worker = Worker(silent)
    await run_rig.routed.join("a", worker, LARGE)
    await run_rig.routed.join("b", worker, LARGE)
    run_id = await run_rig.start()
    answer = await run_rig.embed(run_id, "plan", LARGE)
    assert answer.receipt.route.attempts == 2
    cost = await settled(run_rig, run_id, 2)
    failed = next(row for row in cost.costs if row.kind == FAILED_TRY)
    assert failed.estimated
    assert failed.amount.tokens > 0
    assert cost.estimated_microusd == failed.amount.microusd > 0
    assert rows(cost)[run_id, "plan", ANSWER, 1] == 6 * PICOUSD
    worker.faults.append(refused)
    await run_rig.embed(run_id, "plan", LARGE)
    assert rows(await settled(run_rig, run_id, 3))[run_id, "plan", ANSWER, 2] == 12 * PICOUSD


async def test_a_hedge_is_held_at_the_run_and_the_try_in_vain_is_counted(run_rig: RunRig) -> None:
    slow, quick = Worker(), Worker()
    slow.hangs = True
    await run_rig.routed.join("slow", slow, LARGE)
    await run_rig.routed.join("quick", quick, LARGE)
    run_rig.routed.registry.fleets[LARGE].p95_s = 0.02
    run_id = await run_rig.start(calls=2)
    with run_rig.routed.occupied("quick", requests=1):
        answer = await run_rig.embed(run_id, model=LARGE)
    assert (answer.receipt.route.hedged, answer.receipt.route.instance_id) == (True, "quick")
    cost = await settled(run_rig, run_id, 2)
    kinds = {row.kind: row.estimated for row in cost.costs}
    assert kinds == {ANSWER: False, HEDGE: True}


async def test_a_hedge_that_the_run_has_no_room_for_is_not_sent(run_rig: RunRig) -> None:
    slow, quick = Worker(), Worker()
    slow.hangs = True
    await run_rig.routed.join("slow", slow, LARGE)
    await run_rig.routed.join("quick", quick, LARGE)
    run_rig.routed.registry.fleets[LARGE].p95_s = 0.0
    run_id = await run_rig.start(calls=1)
    with run_rig.routed.occupied("quick", requests=1):
        request = pb.EmbedRequest(texts=["a"], options=pb.CallOptions(model=LARGE, run_id=run_id))
        told = await fault_of(
            run_rig.routed.stub.Embed(request, metadata=run_rig.routed.metadata, timeout=1.5)
        )
    assert told.reason is Reason.DEADLINE_EXCEEDED
    assert quick.asked == 0
    run = await run_rig.run(run_id)
    assert run.state == run_pb2.RUN_STATE_RUNNING, "a hedge that does not fit pauses nothing"


async def test_an_escalation_and_the_unsure_answer_before_it_are_both_counted(
    run_rig: RunRig,
) -> None:
    await run_rig.routed.join("s", Worker(confidence=FLOOR - 0.1), SMALL)
    await run_rig.routed.join("l", Worker(), LARGE)
    run_id = await run_rig.start()
    options = pb.CallOptions(model="auto", run_id=run_id, step="judge")
    request = pb.ClassifyRequest(texts=["late"], options=options)
    answer = await run_rig.routed.stub.Classify(request, metadata=run_rig.routed.metadata)
    assert answer.receipt.model == LARGE
    cost = await settled(run_rig, run_id, 2)
    assert rows(cost) == {
        (run_id, "judge", ESCALATION, 1): 6 * PICOUSD,
        (run_id, "judge", ANSWER, 1): 400_000,
    }
    assert [row.model for row in cost.costs] == [LARGE, SMALL], "the dearest first"


async def test_a_job_of_a_run_is_counted_as_one_and_its_repeated_submission_is_free(
    run_rig: RunRig,
) -> None:
    worker = Worker(Fault(Reason.UPSTREAM_SILENT, "nothing came"))
    await run_rig.routed.join("a", worker, LARGE)
    await run_rig.routed.join("b", worker, LARGE)
    run_id = await run_rig.start()
    job = pb.SubmitJobRequest(idempotency_token="once")
    job.options.model, job.options.run_id, job.options.step = LARGE, run_id, "later"
    job.task.embed.texts.append("hello")
    stub, metadata = run_rig.routed.stub, run_rig.routed.metadata
    first = await stub.SubmitJob(job, metadata=metadata)

    async def ended() -> pb.Job:
        answer = await stub.GetJob(pb.GetJobRequest(id=first.job.id), metadata=metadata)
        assert answer.job.state == pb.JOB_STATE_SUCCEEDED, answer.job
        return answer.job

    done = await eventually(ended, timeout_s=20)
    cost = await settled(run_rig, run_id, 2)
    assert {row.kind: row.step for row in cost.costs} == {JOB: "later", FAILED_TRY: "later"}
    again = await stub.SubmitJob(job, metadata=metadata)
    assert again.job == done, "the kept answer"
    assert await run_rig.cost(run_id) == cost
    assert worker.asked == 2


async def test_the_cost_of_a_run_is_there_for_the_key_that_started_it(run_rig: RunRig) -> None:
    run_id = await run_rig.start()
    request = runs_pb2.GetRunCostRequest(run_id=run_id)
    for metadata in (OTHER_METADATA, SCOPED_METADATA):
        told = await fault_of(run_rig.routed.stub.GetRunCost(request, metadata=metadata))
        assert told.reason is Reason.NOT_FOUND
    nobodys = runs_pb2.GetRunCostRequest(run_id="agent-7")
    told = await fault_of(run_rig.routed.stub.GetRunCost(nobodys, metadata=run_rig.routed.metadata))
    assert (told.reason, told.field) == (Reason.NOT_FOUND, "run_id")


PRICE = ModelPrice(name="m", input_microusd_per_mtok=150_000, output_microusd_per_mtok=600_000)
PRICES = Prices({"m": PRICE})


def receipt(look_up: int = 0, *, computed: bool = True, **usage: int) -> common_pb2.Receipt:
    made = common_pb2.Receipt(model="m", usage=common_pb2.Usage(**usage))
    made.cache.cost_microusd = look_up
    if computed:
        made.route.instance_id = "i"
        made.cost.paid_microusd = PRICES.paid_microusd("m", made.usage) or 0
    made.cost.paid_microusd += look_up
    return made


@pytest.mark.parametrize("look_up", [0, 2])
@pytest.mark.parametrize(("input_tokens", "output_tokens"), [(7, 0), (0, 1), (1_000, 10), (0, 0)])
def test_the_rows_of_an_answer_come_to_its_receipt(
    look_up: int, input_tokens: int, output_tokens: int
) -> None:
    paid = receipt(look_up, input_tokens=input_tokens, output_tokens=output_tokens)
    costs = costs_of_answer(PRICES, paid, ANSWER, "plan")
    assert sum(row.amount.microusd for row in costs) == paid.cost.paid_microusd
    assert _picousd(costs[0]) == input_tokens * 150_000 + output_tokens * 600_000
    assert {row.kind for row in costs} == {ANSWER, LOOK_UP} if look_up else {ANSWER}
    assert {row.step for row in costs} == {"plan"}


def test_a_reused_answer_costs_its_look_up_alone() -> None:
    hit = receipt(3, computed=False, input_tokens=7)
    reused, look_up = costs_of_answer(PRICES, hit, JOB, "")
    assert (reused.kind, reused.amount.microusd, reused.amount.calls) == (REUSED, 0, 1)
    assert (look_up.kind, look_up.amount.microusd, look_up.amount.calls) == (LOOK_UP, 3, 0)


def test_a_price_that_has_changed_since_the_receipt_leaves_what_was_paid() -> None:
    paid = receipt(input_tokens=7)
    dearer = Prices({"m": ModelPrice(name="m", input_microusd_per_mtok=9_000_000)})
    (row,) = costs_of_answer(dearer, paid, ANSWER, "")
    assert (row.amount.microusd, row.rounding_picousd) == (2, 0)


def test_a_try_without_an_answer_is_estimated() -> None:
    spent = Spent("m", 7, 1, lookup_microusd=2)
    failed, look_up = costs_of_try(PRICES, spent, "s")
    assert (failed.kind, failed.estimated, _picousd(failed)) == (FAILED_TRY, True, 1_650_000)
    assert look_up.amount.microusd == 2
    (hedge,) = costs_of_try(PRICES, Spent("m", 7, 1, is_hedge=True), "s")
    assert hedge.kind == HEDGE
    (unpriced,) = costs_of_try(PRICES, Spent("other", 7, 1), "s")
    assert unpriced.amount == run_pb2.RunAmount(calls=1, tokens=8)


def test_the_total_is_rounded_once() -> None:
    run = run_pb2.Run(id="r")
    row = run_pb2.RunCost(run_id="r", kind=ANSWER, rounding_picousd=600_000)
    row.amount.microusd = 1
    guess = run_pb2.RunCost(run_id="r", kind=FAILED_TRY, rounding_picousd=999_999, estimated=True)
    guess.amount.microusd = 1
    answer = cost_of_runs([run], [guess, row, row])
    assert (answer.total.microusd, answer.rounding_picousd) == (1, 199_999)
    assert answer.estimated_microusd == 1
    assert list(answer.costs) == [row, row, guess]


async def test_an_instances_own_fault_ends_the_call_and_costs_nothing(run_rig: RunRig) -> None:
    await run_rig.routed.join("a", Worker(internal("out of memory")), SMALL)
    run_id = await run_rig.start()
    request = pb.EmbedRequest(texts=["a"], options=pb.CallOptions(model=SMALL, run_id=run_id))
    await fault_of(run_rig.routed.stub.Embed(request, metadata=run_rig.routed.metadata))

    async def released() -> bool:
        return (await run_rig.run(run_id)).held.calls == 0

    await eventually(released)
    assert not (await run_rig.cost(run_id)).costs
