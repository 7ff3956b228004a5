"""The ledger: what calls cost and saved, added up from the increments that services send.

Services count every call, sampled or not, and send what was added since their last export. The
ledger keeps totals by account since the start, and totals by tenant in steps of ten seconds.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from opentelemetry.proto.metrics.v1 import metrics_pb2
from penstock.otel import attributes as semconv
from penstock.otel.counts import Account, AccountKey
from penstock.otel.metrics import INCREMENTS, SAVINGS
from penstock.telemetry.spans.spans import plain_attributes
from penstock.telemetry.window.distributions import TimeSteps

FIELDS = {metric: field for field, metric, _ in INCREMENTS}
"""Field of Account by metric name."""
TECHNIQUE_FIELDS = {metric: field for field, metric, _ in SAVINGS}
"""The same for fields that are kept by technique."""

MAX_ACCOUNTS = 50_000
MERGED_RUNS = "(older)"
"""Run of the account that runs are merged into when there are too many accounts."""

MAX_REMEMBERED_EXPORTS = 4096
"""Exports remembered, so that one that is sent again is not counted again."""


@dataclass(frozen=True)
class Total:
    """The accounts with one key, added up."""

    key: str
    account: Account


class Ledger:
    """Totals of every account."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[AccountKey, Account] = OrderedDict()
        self._steps: TimeSteps[str, Account] = TimeSteps(Account)
        """By tenant."""
        self._counted: OrderedDict[bytes, None] = OrderedDict()
        """Digests of the last exports."""

    def record(self, sender: str, scope: metrics_pb2.ScopeMetrics, unix_s: float) -> bool:
        """Count one export of increments; False when it was counted before."""
        content = sender.encode() + scope.SerializeToString(deterministic=True)
        digest = hashlib.sha256(content).digest()
        if digest in self._counted:
            return False
        self._counted[digest] = None
        if len(self._counted) > MAX_REMEMBERED_EXPORTS:
            self._counted.popitem(last=False)
        for metric in scope.metrics:
            for point in metric.sum.data_points:
                self._count(metric.name, point, unix_s)
        return True

    def _count(self, metric: str, point: metrics_pb2.NumberDataPoint, unix_s: float) -> None:
        labels = {key: str(value) for key, value in plain_attributes(point.attributes).items()}
        increment = _increment(metric, point, labels.get(semconv.TECHNIQUE, ""))
        if increment is None:
            return
        key = AccountKey(
            labels.get(semconv.TENANT, ""),
            labels.get(semconv.RUN, ""),
            labels.get(semconv.STEP, ""),
            labels.get(semconv.MODEL, ""),
            labels.get(semconv.CACHE_OUTCOME, ""),
            labels.get(semconv.TIER, ""),
        )
        self._account(key).merge(increment)
        if (step := self._steps.value(unix_s, key.tenant)) is not None:
            step.merge(increment)

    def _account(self, key: AccountKey) -> Account:
        """The account of a key; where there are too many, the oldest loses its run and step."""
        if key in self._accounts:
            self._accounts.move_to_end(key)
        elif len(self._accounts) >= MAX_ACCOUNTS:
            oldest, account = self._accounts.popitem(last=False)
            merged = oldest._replace(run_id=MERGED_RUNS if oldest.run_id else "", step="")
            self._accounts.setdefault(merged, Account()).merge(account)
        return self._accounts.setdefault(key, Account())

    def totals_by(
        self, key_of: Callable[[AccountKey], str], tenant: str = "", run_id: str = ""
    ) -> list[Total]:
        """Totals since the start by a key of the accounts, the most expensive first.

        `tenant` and `run_id` restrict them to one tenant and one run; empty means all.
        """
        totals: dict[str, Account] = {}
        for key, account in self._accounts.items():
            if tenant in ("", key.tenant) and run_id in ("", key.run_id):
                totals.setdefault(key_of(key), Account()).merge(account)
        rows = [Total(key, account) for key, account in totals.items()]
        return sorted(rows, key=_expensive_first)

    def steps_between(
        self, from_s: float, to_s: float, tenant: str = ""
    ) -> list[tuple[int, Account]]:
        """(start of the step in Unix seconds, totals of the step), the oldest first."""
        steps: dict[int, Account] = {}
        for start_s, owner, account in self._steps.between(from_s, to_s):
            if tenant in ("", owner):
                steps.setdefault(start_s, Account()).merge(account)
        return sorted(steps.items())


def _increment(metric: str, point: metrics_pb2.NumberDataPoint, technique: str) -> Account | None:
    """A point as an account that holds nothing else; None for a metric that is no account's."""
    amount = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
    increment = Account()
    if metric in FIELDS:
        setattr(increment, FIELDS[metric], amount)
    elif metric in TECHNIQUE_FIELDS:
        getattr(increment, TECHNIQUE_FIELDS[metric])[technique] = amount
    else:
        return None
    return increment


def _expensive_first(total: Total) -> tuple[int, int, str]:
    return (-total.account.paid_microusd, -total.account.full_price_microusd, total.key)


def sum_of_accounts(accounts: Iterable[Account]) -> Account:
    """The sum of accounts."""
    total = Account()
    for account in accounts:
        total.merge(account)
    return total


def unattributed_microusd(account: Account) -> int:
    """Full price less paid less what every technique saved; 0 when the increments add up."""
    saved = sum(account.saved_microusd.values())
    return account.full_price_microusd - account.paid_microusd - saved
