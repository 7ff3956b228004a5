"""What telemetry adds up: cost and savings of every call, who calls whom, latency, and series."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
import pytest_asyncio
from penstock.api.common.v1 import common_pb2
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.testkit.eventually import eventually

from .caching import EXACT
from .calls import Api, chat, refused
from .configuration import EMBEDDER

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]


@dataclass(frozen=True)
class Made:
    """Everything that one tenant was answered: an embedding in a run, a conversation, the same
    again until it was kept. A mistake, too, which costs nothing."""

    tenant: str
    receipts: list[common_pb2.Receipt]

    def of(self, **fields: str) -> list[common_pb2.Receipt]:
        """Receipts with these values."""
        return [
            receipt
            for receipt in self.receipts
            if all(getattr(receipt, name) == value for name, value in fields.items())
        ]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def made(api: Api) -> Made:
    caller = api.caller()
    bypass = {"bypass": True}
    embedded = await caller.embed("counted", run_id="run-t", step="search", cache=bypass)
    receipts = [embedded.receipt]

    async def kept() -> None:
        receipts.append((await caller.generate(chat("counted"), model="chat")).receipt)
        assert receipts[-1].cache.outcome == EXACT

    await eventually(kept)
    await refused(caller.embed(" "))
    return Made(caller.key, receipts)


async def test_the_ledger_counts_every_call_and_adds_up(api: Api, made: Made) -> None:
    async def counted() -> pb.SavingsResponse:
        request = pb.GetSavingsRequest(tenant=made.tenant)
        answer = await api.telemetry.GetSavings(request, metadata=api.token)
        assert answer.calls == len(made.receipts)
        return answer

    savings = await eventually(counted)
    costs = [receipt.cost for receipt in made.receipts]
    assert savings.paid_microusd == sum(cost.paid_microusd for cost in costs)
    assert savings.full_price_microusd == sum(cost.full_price_microusd for cost in costs)
    assert (savings.unattributed_microusd, savings.unbalanced) == (0, 0)
    expected: Counter[str] = Counter()
    for receipt in made.receipts:
        expected.update({row.technique: row.microusd for row in receipt.savings})
    assert {row.technique: row.microusd for row in savings.rows} == dict(expected)
    assert expected["exact_cache"] > 0


@pytest.mark.parametrize(
    ("by", "key", "fields"),
    [
        (pb.COST_BY_TENANT, "", {}),
        (pb.COST_BY_RUN, "run-t", {"run_id": "run-t"}),
        (pb.COST_BY_STEP, "search", {"run_id": "run-t"}),
        (pb.COST_BY_MODEL, "chat", {"model": "chat"}),
        (pb.COST_BY_MODEL, EMBEDDER, {"model": EMBEDDER}),
        (pb.COST_BY_CACHE, "bypassed", {"model": EMBEDDER}),
        (pb.COST_BY_TIER, "short", {}),
    ],
)
async def test_cost_is_told_apart(
    api: Api, made: Made, by: pb.CostBy.ValueType, key: str, fields: dict[str, str]
) -> None:
    receipts = made.of(**fields)

    async def counted() -> pb.CostRow:
        request = pb.GetCostsRequest(by=by, tenant=made.tenant)
        rows = (await api.telemetry.GetCosts(request, metadata=api.token)).rows
        found = [row for row in rows if row.key == (key or made.tenant)]
        assert [row.calls for row in found] == [len(receipts)]
        return found[0]

    row = await eventually(counted)
    assert row.paid_microusd == sum(receipt.cost.paid_microusd for receipt in receipts)
    assert row.input_tokens == sum(receipt.usage.input_tokens for receipt in receipts)
    assert row.output_tokens == sum(receipt.usage.output_tokens for receipt in receipts)
    saved = sum(saving.microusd for saving in row.savings)
    assert row.full_price_microusd == row.paid_microusd + saved
    assert row.mean_ms > 0


async def test_who_calls_whom_and_how_long_tiers_take(api: Api, made: Made) -> None:
    async def known() -> None:
        graph = await api.telemetry.GetServiceGraph(pb.GetServiceGraphRequest(), metadata=api.token)
        edges = {(row.client, row.server): row for row in graph.edges}
        for pair in (
            ("client", "router"),
            ("router", "limiter"),
            ("router", "cache"),
            ("router", "batcher"),
            ("batcher", "inference-onnx-quantized"),
            ("batcher", "inference-upstream"),
        ):
            assert edges[pair].calls > 0
        assert edges["client", "router"].errors > 0
        tiers = await api.telemetry.GetLatencies(pb.GetLatenciesRequest(), metadata=api.token)
        rows = {(row.name, row.tier) for row in tiers.rows}
        assert ("RouterService/Embed", "short") in rows

    await eventually(known, not_yet=(KeyError,))


@pytest.mark.usefixtures("made")
async def test_every_service_reports_in_one_row_and_its_metrics_by_name(api: Api) -> None:
    async def reported() -> None:
        overview = await api.telemetry.GetOverview(pb.GetOverviewRequest(), metadata=api.token)
        assert {row.service for row in overview.rows} >= {
            "router",
            "batcher",
            "cache",
            "limiter",
            "inference-onnx-quantized",
        }
        listed = await api.telemetry.GetMetrics(pb.GetMetricsRequest(), metadata=api.token)
        assert {"penstock.router.picks", "penstock.batcher.queue_wait"} <= set(listed.names)
        request = pb.GetMetricsRequest(name="penstock.router.picks", service="router")
        series = (await api.telemetry.GetMetrics(request, metadata=api.token)).series
        assert {row.labels["branch"] for row in series} >= {"lowest score"}
        assert all(row.kind == "sum" and row.points for row in series)

    await eventually(reported, 20)
