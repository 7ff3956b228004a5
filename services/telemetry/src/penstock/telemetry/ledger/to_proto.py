"""What the ledger holds, turned into messages: savings and cost. Conversion only."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.otel.counts import Account
from penstock.telemetry.ledger.ledger import Total, added, unattributed


def _saving_rows(account: Account) -> list[pb.SavingsRow]:
    techniques = sorted({*account.saved_microusd, *account.saved_ms})
    return [
        pb.SavingsRow(
            technique=name,
            microusd=account.saved_microusd.get(name, 0),
            saved_ms=account.saved_ms.get(name, 0.0),
        )
        for name in techniques
    ]


def savings(steps: Sequence[tuple[int, Account]]) -> pb.GetSavingsResponse:
    """The ledger; its rows and what is unattributed add up to full price less paid."""
    total = added(account for _, account in steps)
    points = [
        pb.SavingsPoint(
            unix_ms=start_s * 1000,
            paid_microusd=account.paid_microusd,
            full_price_microusd=account.full_price_microusd,
            calls=account.calls,
            rows=_saving_rows(account),
        )
        for start_s, account in steps
    ]
    return pb.GetSavingsResponse(
        calls=total.calls,
        paid_microusd=total.paid_microusd,
        full_price_microusd=total.full_price_microusd,
        rows=_saving_rows(total),
        unattributed_microusd=unattributed(total),
        points=points,
        unbalanced=total.unbalanced,
    )


def costs(rows: Sequence[Total]) -> pb.GetCostsResponse:
    """Cost by key."""
    return pb.GetCostsResponse(rows=[_cost(row.key, row.account) for row in rows])


def _cost(key: str, account: Account) -> pb.CostRow:
    return pb.CostRow(
        key=key,
        calls=account.calls,
        paid_microusd=account.paid_microusd,
        full_price_microusd=account.full_price_microusd,
        input_tokens=account.input_tokens,
        output_tokens=account.output_tokens,
        mean_ms=account.latency_ms / account.calls if account.calls else 0.0,
        savings=_saving_rows(account),
    )
