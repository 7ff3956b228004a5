"""The ledger: what calls cost and saved, from the increments that services send for every call,
sampled or not. Micro-dollars.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from opentelemetry.proto.metrics.v1 import metrics_pb2
from penstock.otel import attributes as names
from penstock.otel.counts import Account, AccountKey
from penstock.otel.metrics import INCREMENTS
from penstock.telemetry.spans.spans import plain_attributes
from penstock.telemetry.window.distributions import TimeSteps

FIELDS = {name: field for field, name, _ in INCREMENTS}
SAVINGS = {names.SAVED: "saved_microusd", names.SAVED_MS: "saved_ms"}
MAX_ACCOUNTS = 50_000
OLDER = "(older)"
REMEMBERED = 4096
"""Exports remembered, so that one that is sent again is not counted again."""


@dataclass(frozen=True)
class Total:
    """Rows of one key added up."""

    key: str
    account: Account


class Ledger:
    """Accounts by key since the start, and by tenant in steps of ten seconds."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[AccountKey, Account] = OrderedDict()
        self._steps: TimeSteps[str, Account] = TimeSteps(Account)
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def take(self, sender: str, scope: metrics_pb2.ScopeMetrics, unix_s: float) -> bool:
        """Count one export of increments; False when it was counted before."""
        digest = hashlib.sha256(
            sender.encode() + scope.SerializeToString(deterministic=True)
        ).digest()
        if digest in self._seen:
            return False
        self._seen[digest] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        for metric in scope.metrics:
            for point in metric.sum.data_points:
                self._count(metric.name, point, unix_s)
        return True

    def _count(self, name: str, point: metrics_pb2.NumberDataPoint, unix_s: float) -> None:
        said = {key: str(value) for key, value in plain_attributes(point.attributes).items()}
        amount = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
        part = Account()
        if name in FIELDS:
            setattr(part, FIELDS[name], amount)
        elif name in SAVINGS:
            getattr(part, SAVINGS[name])[said.get(names.TECHNIQUE, "")] = amount
        else:
            return
        key = AccountKey(
            said.get(names.TENANT, ""),
            said.get(names.RUN, ""),
            said.get(names.STEP, ""),
            said.get(names.MODEL, ""),
            said.get(names.CACHE_OUTCOME, ""),
            said.get(names.TIER, ""),
        )
        self._account(key).merge(part)
        if (step := self._steps.at(unix_s, key.tenant)) is not None:
            step.merge(part)

    def _account(self, key: AccountKey) -> Account:
        if key in self._accounts:
            self._accounts.move_to_end(key)
        elif len(self._accounts) >= MAX_ACCOUNTS:
            old, account = self._accounts.popitem(last=False)
            merged = old._replace(run_id=OLDER if old.run_id else "", step="")
            self._accounts.setdefault(merged, Account()).merge(account)
        return self._accounts.setdefault(key, Account())

    def by(
        self, key_of: Callable[[AccountKey], str], tenant: str = "", run_id: str = ""
    ) -> list[Total]:
        """Totals since the start, dearest first."""
        totals: dict[str, Account] = {}
        for key, account in self._accounts.items():
            if tenant in ("", key.tenant) and run_id in ("", key.run_id):
                totals.setdefault(key_of(key), Account()).merge(account)
        rows = [Total(key, account) for key, account in totals.items()]
        return sorted(
            rows,
            key=lambda row: (-row.account.paid_microusd, -row.account.full_price_microusd, row.key),
        )

    def over_time(self, from_s: float, to_s: float, tenant: str = "") -> list[tuple[int, Account]]:
        """(step's start in Unix seconds, sums of the step), oldest first."""
        points: dict[int, Account] = {}
        for start_s, owner, account in self._steps.between(from_s, to_s):
            if tenant in ("", owner):
                points.setdefault(start_s, Account()).merge(account)
        return sorted(points.items())


def sum_of_accounts(accounts: Iterable[Account]) -> Account:
    """The sum of accounts."""
    total = Account()
    for account in accounts:
        total.merge(account)
    return total


def unattributed(account: Account) -> int:
    """Full price less paid less every technique's part: 0 when the increments add up exactly."""
    return (
        account.full_price_microusd - account.paid_microusd - sum(account.saved_microusd.values())
    )
