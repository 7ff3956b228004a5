"""The rows of a run's cost in order, and their sum. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock.api.common.v1 import run_pb2
from penstock.api.router.v1 import runs_pb2 as pb
from penstock.prices.prices import PICOUSD, rounded_up_microusd
from penstock.service.purity import pure


@pure
def cost_of_runs(
    runs: Sequence[run_pb2.Run], costs: Sequence[run_pb2.RunCost]
) -> pb.GetRunCostResponse:
    """The answer of GetRunCost: rows by run in their order, then the dearest first."""
    places = {run.id: place for place, run in enumerate(runs)}
    ordered = sorted(
        costs, key=lambda row: (places[row.run_id], -_picousd(row), row.step, row.kind, row.model)
    )
    picousd = _sum(costs)
    total = run_pb2.RunAmount(
        calls=sum(row.amount.calls for row in costs),
        tokens=sum(row.amount.tokens for row in costs),
        microusd=rounded_up_microusd(picousd),
    )
    return pb.GetRunCostResponse(
        runs=runs,
        costs=ordered,
        total=total,
        rounding_picousd=total.microusd * PICOUSD - picousd,
        estimated_microusd=rounded_up_microusd(_sum(row for row in costs if row.estimated)),
    )


def _picousd(row: run_pb2.RunCost) -> int:
    return row.amount.microusd * PICOUSD - row.rounding_picousd


def _sum(rows: Iterable[run_pb2.RunCost]) -> int:
    return sum(map(_picousd, rows))
