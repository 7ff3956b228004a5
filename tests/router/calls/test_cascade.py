"""`model: auto` with a floor: when an answer is taken to the next model, when it stays, and what is
paid.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.prices.prices import ModelPrice
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.settings import ModelRoute, RouterSettings, RoutesSection
from penstock.router.stages import Admitted, OpenAdmission
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, invalid, unavailable
from penstock.rpc.reasons import Reason
from penstock.testkit.instance import EmptyInstance

from ..routed import Routed, StartRouter

TOKENS = 1_000_000
"""Of every answer: a price for a million tokens is then the price of a call."""
PRICES = {"small": 100, "middle": 1_000, "large": 9_000}
FLOOR = 0.8
DOWN = unavailable("no")
REFUSES = invalid("task", "is refused", Reason.UPSTREAM_REFUSED)


class Labels(EmptyInstance):
    """A model that is always so sure, or cannot be asked."""

    def __init__(self, confidence: float) -> None:
        self.confidence = confidence
        self.fault: Fault | None = None
        self.calls = 0

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        self.calls += 1
        if self.fault is not None:
            raise self.fault
        result = inference_pb2.TaskResult(compute_ms=1.0, revision="1")
        label = result.classify.classifications.add().labels.add(label="refund")
        label.score = self.confidence
        result.usage.input_tokens = TOKENS
        return inference_pb2.ComputeResponse(result=result)


class ObservedAdmission(OpenAdmission):
    """Lets everybody pass and records under which ceiling."""

    def __init__(self) -> None:
        self.ceilings: list[int] = []

    async def admit(self, call: Call, request: ResolvedRequest) -> Admitted:
        self.ceilings.append(request.options.max_cost_microusd)
        return await super().admit(call, request)


@dataclass
class Rig:
    """A router that knows three models by quality and price, each served by one instance."""

    routed: Routed
    routes: RoutesSection
    admission: ObservedAdmission
    instances: dict[str, Labels]

    async def classify(self, model: str = "auto", **options: object) -> pb.ClassifyResponse:
        """Ask for the label of one text."""
        given = pb.CallOptions(model=model, **options)  # type: ignore[arg-type]
        request = pb.ClassifyRequest(texts=["money back"], options=given)
        answer: pb.ClassifyResponse = await self.routed.stub.Classify(
            request, metadata=self.routed.metadata
        )
        return answer

    def calls(self) -> list[int]:
        """How often each model was asked, the cheapest first."""
        return [labels.calls for labels in self.instances.values()]


@pytest.fixture
async def rig(start_router: StartRouter) -> AsyncIterator[Rig]:
    quality = {"small": 0.6, "middle": 0.8, "large": 0.95}
    declared = tuple(ModelRoute(name=name, quality=value) for name, value in quality.items())
    routes = RoutesSection(models=declared, cascade_floor=FLOOR)
    prices = {
        name: ModelPrice(name=name, input_microusd_per_mtok=price) for name, price in PRICES.items()
    }
    instances = {"small": Labels(0.3), "middle": Labels(0.7), "large": Labels(0.97)}
    settings, admission = RouterSettings(default_model="small"), ObservedAdmission()
    async with start_router(settings, admission=admission, routes=routes, prices=prices) as routed:
        for name, labels in instances.items():
            await routed.join(f"{name}-1", labels, name)
        yield Rig(routed, routes, admission, instances)


async def test_an_unsure_answer_goes_on_and_the_receipt_holds_what_each_step_cost(
    rig: Rig,
) -> None:
    answer = await rig.classify()
    receipt = answer.receipt
    assert rig.calls() == [1, 1, 1]
    assert answer.classifications[0].labels[0].score == pytest.approx(0.97)
    assert (receipt.model, receipt.route.instance_id) == ("large", "large-1")
    assert [(row.model, row.cost.paid_microusd) for row in receipt.escalations] == [
        ("small", 100),
        ("middle", 1_000),
    ]
    assert [row.confidence for row in receipt.escalations] == pytest.approx([0.3, 0.7])
    assert {row.floor for row in receipt.escalations} == {FLOOR}
    assert receipt.cost.paid_microusd == sum(PRICES.values())
    saved = sum(row.microusd for row in receipt.savings)
    assert receipt.cost.full_price_microusd - receipt.cost.paid_microusd == saved
    assert receipt.usage.input_tokens == 3 * TOKENS
    assert receipt.total_ms > sum(row.total_ms for row in receipt.escalations) > 0
    assert len({receipt.request_id, *(row.request_id for row in receipt.escalations)}) == 3
    assert "auto: cheapest of 3 with quality 0 or more" in receipt.notes
    assert receipt.notes[-1].startswith(
        "cascade: small was 0.30 sure, below 0.8; asking on cost 10000 micro-dollars and "
    )


async def test_the_first_answer_that_is_sure_enough_is_the_last(rig: Rig) -> None:
    rig.instances["middle"].confidence = FLOOR
    receipt = (await rig.classify()).receipt
    assert (receipt.model, rig.calls()) == ("middle", [1, 1, 0])
    assert receipt.cost.paid_microusd == 1_100


async def test_a_named_model_is_not_left(rig: Rig) -> None:
    receipt = (await rig.classify("small", fallback_models=["large"])).receipt
    assert (receipt.model, rig.calls(), len(receipt.escalations)) == ("small", [1, 0, 0], 0)


async def test_a_sure_answer_stays_where_it_is(rig: Rig) -> None:
    rig.instances["small"].confidence = 0.9
    receipt = (await rig.classify()).receipt
    assert (receipt.model, rig.calls(), receipt.cost.paid_microusd) == ("small", [1, 0, 0], 100)


async def test_without_a_floor_every_answer_stays_where_it_is(rig: Rig) -> None:
    rig.routed.models.replace(rig.routes.model_copy(update={"cascade_floor": 0.0}))
    receipt = (await rig.classify()).receipt
    assert (receipt.model, rig.calls(), receipt.cost.paid_microusd) == ("small", [1, 0, 0], 100)


async def test_when_no_other_model_can_be_asked_the_answer_that_was_paid_for_stands(
    rig: Rig,
) -> None:
    rig.instances["middle"].fault = REFUSES
    answer = await rig.classify()
    receipt = answer.receipt
    assert answer.classifications[0].labels[0].score == pytest.approx(0.3)
    assert (receipt.model, receipt.cost.paid_microusd) == ("small", 100)
    assert not receipt.escalations
    assert receipt.notes[-1] == (
        "cascade: 0.30 sure, below 0.8, but middle could not be asked: UPSTREAM_REFUSED"
    )


async def test_a_model_that_is_down_is_passed_over(rig: Rig) -> None:
    rig.instances["middle"].fault = DOWN
    receipt = (await rig.classify()).receipt
    assert (receipt.model, receipt.cost.paid_microusd) == ("large", 9_100)
    assert any(note.startswith("fallback from middle to large") for note in receipt.notes)


async def test_a_model_that_a_fallback_has_served_is_not_asked_again(rig: Rig) -> None:
    rig.instances["small"].fault = DOWN
    receipt = (await rig.classify()).receipt
    assert [row.model for row in receipt.escalations] == ["middle"]
    assert rig.calls() == [1, 1, 1]


async def test_a_run_that_has_spent_its_money_asks_no_further_model(rig: Rig) -> None:
    receipt = (await rig.classify(run_id="r", run_max_cost_microusd=100)).receipt
    assert (receipt.model, rig.calls()) == ("small", [1, 0, 0])
    assert receipt.notes[-1].endswith("RUN_BUDGET_EXHAUSTED")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rig.classify(run_id="r")
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_each_step_has_what_is_left_of_the_callers_ceiling(rig: Rig) -> None:
    await rig.classify(max_cost_microusd=5_000)
    assert rig.admission.ceilings == [5_000, 4_900, 3_900]


async def test_a_verdict_counts_for_the_model_that_gave_the_answer(rig: Rig) -> None:
    receipt = (await rig.classify()).receipt
    before = {name: rig.routed.models.quality(name) for name in PRICES}
    verdict = pb.SendFeedbackRequest(request_id=receipt.request_id, correct=False)
    await rig.routed.stub.SendFeedback(verdict, metadata=rig.routed.metadata)
    after = {name: rig.routed.models.quality(name) for name in PRICES}
    assert [name for name in PRICES if after[name] != before[name]] == ["large"]


@pytest.mark.parametrize("floor", [-0.1, 1.5, "high"])
def test_a_floor_that_cannot_be_stops_the_start(floor: object) -> None:
    with pytest.raises(ValueError, match="cascade_floor"):
        RoutesSection.model_validate({"cascade_floor": floor})
