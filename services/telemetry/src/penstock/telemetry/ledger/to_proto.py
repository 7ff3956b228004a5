"""The ledger's values as messages of `penstock.api.telemetry.v1`."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.otel.counts import Account
from penstock.telemetry.ledger.ledger import Total, sum_of_accounts, unattributed_microusd


def savings(steps: Sequence[tuple[int, Account]]) -> pb.GetSavingsResponse:
    """What was paid and saved in these steps, in total and step by step."""
    total = sum_of_accounts(account for _, account in steps)
    return pb.GetSavingsResponse(
        calls=total.calls,
        paid_microusd=total.paid_microusd,
        full_price_microusd=total.full_price_microusd,
        rows=_savings_rows(total),
        unattributed_microusd=unattributed_microusd(total),
        points=[_savings_point(start_s, account) for start_s, account in steps],
        unbalanced=total.unbalanced,
    )


def costs(totals: Sequence[Total]) -> pb.GetCostsResponse:
    """Totals by key."""
    return pb.GetCostsResponse(rows=[_cost_row(total.key, total.account) for total in totals])


def _savings_point(start_s: int, account: Account) -> pb.SavingsPoint:
    return pb.SavingsPoint(
        unix_ms=start_s * 1000,
        paid_microusd=account.paid_microusd,
        full_price_microusd=account.full_price_microusd,
        calls=account.calls,
        rows=_savings_rows(account),
    )


def _savings_rows(account: Account) -> list[pb.SavingsRow]:
    return [
        pb.SavingsRow(
            technique=technique,
            microusd=account.saved_microusd.get(technique, 0),
            saved_ms=account.saved_ms.get(technique, 0.0),
        )
        for technique in sorted({*account.saved_microusd, *account.saved_ms})
    ]


def _cost_row(key: str, account: Account) -> pb.CostRow:
    return pb.CostRow(
        key=key,
        calls=account.calls,
        paid_microusd=account.paid_microusd,
        full_price_microusd=account.full_price_microusd,
        input_tokens=account.input_tokens,
        output_tokens=account.output_tokens,
        mean_ms=account.latency_ms / account.calls if account.calls else 0.0,
        savings=_savings_rows(account),
    )
