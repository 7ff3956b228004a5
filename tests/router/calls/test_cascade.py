"""`model: auto` with a floor, over a real router and three real instances: when the answer climbs,
when it stays, and who pays what.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.prices.prices import ModelPrice
from penstock.router.requests.work import Work
from penstock.router.settings import ModelRoute, RouterSettings, RoutesSection
from penstock.router.stages import Admitted, OpenAdmission
from penstock.rpc.call import Call
from penstock.rpc.errors import exhausted, unavailable

KEY = "psk-cascade"
METADATA = (("authorization", f"Bearer {KEY}"),)
TOKENS = 1_000_000
"""Of every answer: a price for a million tokens is then the price of a call."""
PRICES = {"small": 100, "middle": 1_000, "large": 9_000}
FLOOR = 0.8


@dataclass
class Labels:
    """A model that is always so sure, or cannot be asked."""

    sure: float
    code: str = ""
    asked: int = 0

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        self.asked += 1
        if self.code == "down":
            raise unavailable("no")
        if self.code == "limited":
            raise exhausted("enough for today", reason="PROVIDER_LIMIT")
        result = inference_pb2.TaskResult(compute_ms=1.0, revision="1")
        result.classify.classifications.add().labels.add(label="refund", score=self.sure)
        result.usage.input_tokens = TOKENS
        return inference_pb2.ComputeResponse(result=result)

    ComputeStream = ComputeBatch = ListModels = LoadModel = UnloadModel = Compute


class Ceilings(OpenAdmission):
    """Lets everybody pass and remembers under which ceiling."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    async def admit(self, call: Call, options: pb.CallOptions, work: Work) -> Admitted:
        self.seen.append(options.max_cost_microusd)
        return await super().admit(call, options, work)


@dataclass
class Rig:
    """A router that knows three models by quality and price, each served by one instance."""

    routed: Any
    routes: RoutesSection
    ceilings: Ceilings
    instances: dict[str, Labels]

    async def classify(self, model: str = "auto", **options: object) -> pb.ClassifyResponse:
        asked = pb.CallOptions(model=model, **options)  # type: ignore[arg-type]
        request = pb.ClassifyRequest(texts=["money back"], options=asked)
        answer: pb.ClassifyResponse = await self.routed.stub.Classify(
            request, metadata=self.routed.metadata
        )
        return answer

    def asked(self) -> list[int]:
        return [labels.asked for labels in self.instances.values()]


@pytest.fixture
async def rig(start_router: Callable[..., Any]) -> AsyncIterator[Rig]:
    quality = {"small": 0.6, "middle": 0.8, "large": 0.95}
    declared = tuple(ModelRoute(name=name, quality=value) for name, value in quality.items())
    routes = RoutesSection(models=declared, cascade_floor=FLOOR)
    prices = {
        name: ModelPrice(name=name, input_microusd_per_mtok=price) for name, price in PRICES.items()
    }
    instances = {"small": Labels(0.3), "middle": Labels(0.7), "large": Labels(0.97)}
    settings, ceilings = RouterSettings(default_model="small"), Ceilings()
    async with start_router(settings, admission=ceilings, routes=routes, prices=prices) as routed:
        for name, labels in instances.items():
            await routed.join(f"{name}-1", labels, name)
        yield Rig(routed, routes, ceilings, instances)


async def test_an_unsure_answer_climbs_and_the_receipt_holds_what_each_step_cost(rig: Rig) -> None:
    answer = await rig.classify()
    receipt = answer.receipt
    assert rig.asked() == [1, 1, 1]
    assert answer.classifications[0].labels[0].score == pytest.approx(0.97)
    assert (receipt.model, receipt.route.instance_id) == ("large", "large-1")
    assert [(row.model, row.cost.paid_microusd) for row in receipt.escalations] == [
        ("small", 100),
        ("middle", 1_000),
    ]
    assert [row.confidence for row in receipt.escalations] == pytest.approx([0.3, 0.7])
    assert {row.floor for row in receipt.escalations} == {FLOOR}
    assert receipt.cost.paid_microusd == sum(PRICES.values())
    assert receipt.cost.full_price_microusd - receipt.cost.paid_microusd == sum(
        row.microusd for row in receipt.savings
    )
    assert receipt.usage.input_tokens == 3 * TOKENS
    assert receipt.total_ms > sum(row.total_ms for row in receipt.escalations) > 0
    assert len({receipt.request_id, *(row.request_id for row in receipt.escalations)}) == 3
    assert "auto: cheapest of 3 with quality 0 or more" in receipt.notes
    assert receipt.notes[-1].startswith(
        "cascade: small was 0.30 sure, below 0.8; asking on cost 10000 micro-dollars and "
    )


async def test_the_climb_ends_with_the_first_answer_that_is_sure(rig: Rig) -> None:
    rig.instances["middle"].sure = FLOOR
    receipt = (await rig.classify()).receipt
    assert (receipt.model, rig.asked()) == ("middle", [1, 1, 0])
    assert receipt.cost.paid_microusd == 1_100


async def test_a_sure_answer_and_a_named_model_stay_where_they_are(rig: Rig) -> None:
    named = (await rig.classify("small", fallback_models=["large"])).receipt
    rig.instances["small"].sure = 0.9
    sure = (await rig.classify()).receipt
    rig.instances["small"].sure = 0.1
    rig.routed.models.replace(rig.routes.model_copy(update={"cascade_floor": 0.0}))
    without_floor = (await rig.classify()).receipt
    assert [item.model for item in (named, sure, without_floor)] == ["small"] * 3
    assert rig.asked() == [3, 0, 0]
    assert not any(
        item.escalations or item.cost.paid_microusd != 100 for item in (named, sure, without_floor)
    )


async def test_when_no_other_model_can_be_asked_the_answer_that_was_paid_for_stands(
    rig: Rig,
) -> None:
    rig.instances["middle"].code = "limited"
    answer = await rig.classify()
    assert answer.classifications[0].labels[0].score == pytest.approx(0.3)
    assert (
        answer.receipt.model,
        answer.receipt.cost.paid_microusd,
        len(answer.receipt.escalations),
    ) == (
        "small",
        100,
        0,
    )
    assert answer.receipt.notes[-1] == (
        "cascade: 0.30 sure, below 0.8, but middle could not be asked: PROVIDER_LIMIT"
    )


async def test_a_model_that_is_down_is_passed_over_and_never_asked_twice(rig: Rig) -> None:
    rig.instances["middle"].code = "down"
    passed = (await rig.classify()).receipt
    assert (passed.model, passed.cost.paid_microusd) == ("large", 9_100)
    assert any(note.startswith("fallback from middle to large") for note in passed.notes)
    before = rig.asked()
    rig.instances["small"].code, rig.instances["middle"].code = "down", ""
    climbed = (await rig.classify()).receipt
    assert [row.model for row in climbed.escalations] == ["middle"]
    assert [now - then for now, then in zip(rig.asked(), before, strict=True)] == [1, 1, 1]


async def test_a_run_that_has_spent_its_money_climbs_no_further(rig: Rig) -> None:
    receipt = (await rig.classify(run_id="r", run_max_cost_microusd=100)).receipt
    assert (receipt.model, rig.asked()) == ("small", [1, 0, 0])
    assert receipt.notes[-1].endswith("RUN_BUDGET_EXHAUSTED")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.classify(run_id="r")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_each_step_has_what_is_left_of_the_callers_ceiling(rig: Rig) -> None:
    await rig.classify(max_cost_microusd=5_000)
    assert rig.ceilings.seen == [5_000, 4_900, 3_900]


async def test_verdicts_count_for_the_model_that_gave_the_answer(rig: Rig) -> None:
    receipt = (await rig.classify()).receipt
    before = {name: rig.routed.models.quality(name) for name in PRICES}
    verdict = pb.SendFeedbackRequest(request_id=receipt.request_id, correct=False)
    await rig.routed.stub.SendFeedback(verdict, metadata=rig.routed.metadata)
    after = {name: rig.routed.models.quality(name) for name in PRICES}
    assert [name for name in PRICES if after[name] != before[name]] == ["large"]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"min_quality": 1.1}, "options.min_quality"),
        ({"min_quality": float("nan")}, "options.min_quality"),
        ({"max_cost_microusd": -1}, "options.max_cost_microusd"),
    ],
)
async def test_bad_input_names_its_field_and_asks_nobody(
    rig: Rig, options: dict[str, object], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.classify(**options)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in (caught.value.details() or "")
    assert rig.asked() == [0, 0, 0]


@pytest.mark.parametrize("floor", [-0.1, 1.5, "high"])
def test_a_floor_that_cannot_be_stops_the_start(floor: object) -> None:
    with pytest.raises(ValueError, match="cascade_floor"):
        RoutesSection.model_validate({"cascade_floor": floor})
