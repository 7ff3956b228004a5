"""The limiter's own services: holds and leases, each idempotent, each with an end; operators."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.testkit.eventually import eventually

from .calls import Api, Counted, Metadata, refused

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
ALLOWED, BUDGET = pb.VERDICT_ALLOWED, pb.VERDICT_BUDGET_EXHAUSTED
MODEL = "chat"
_names = itertools.count()


def amount(requests: int, tokens: int, microusd: int) -> pb.Amount:
    return pb.Amount(requests=requests, tokens=tokens, microusd=microusd)


class Account:
    """An organisation at the limiter's internal port, as a router calls for it."""

    def __init__(self, api: Api, name: str = "") -> None:
        self.api, self.name = api, name or api.system.fresh_tenant()
        self.metadata: Metadata = api.on_behalf(self.name)

    async def reserve(self, hold: str, most: pb.Amount, **fields: Any) -> pb.Decision:
        request = pb.ReserveRequest(
            hold_id=hold, model=MODEL, amount=most, least=amount(1, 10, 10), **fields
        )
        return (await self.api.limiter.Reserve(request, metadata=self.metadata)).decision

    async def call(self, method: str, request: Any) -> Any:
        return await getattr(self.api.limiter, method)(request, metadata=self.metadata)

    async def tokens(self) -> Counted:
        return (await self.api.ledger(self.name, MODEL))["all-tokens"]


@pytest.fixture
def account(api: Api) -> Account:
    return Account(api)


@pytest.fixture
def hold() -> str:
    return f"hold-{next(_names)}"


async def test_a_hold_is_taken_enlarged_and_settled(account: Account, hold: str) -> None:
    assert (await account.reserve(hold, amount(1, 100, 300))) == pb.Decision(verdict=ALLOWED)
    assert await account.tokens() == Counted(0, held=100)
    grown = pb.ExtendRequest(hold_id=hold, amount=amount(1, 150, 450))
    assert (await account.call("Extend", grown)).decision.verdict == ALLOWED
    assert await account.tokens() == Counted(0, held=150)
    smaller = pb.ExtendRequest(hold_id=hold, amount=amount(1, 20, 60))
    assert (await account.call("Extend", smaller)).decision.verdict == ALLOWED
    assert await account.tokens() == Counted(0, held=150)
    spent = pb.CommitRequest(hold_id=hold, spent=amount(1, 70, 210))
    assert (await account.call("Commit", spent)).settled
    rows = await account.api.ledger(account.name, MODEL)
    assert rows == {
        "all-requests": Counted(1),
        "all-tokens": Counted(70),
        "all-money": Counted(210),
    }


async def test_repeating_a_reservation_or_a_settlement_changes_nothing(
    account: Account, hold: str
) -> None:
    for _ in range(3):
        assert (await account.reserve(hold, amount(1, 100, 300))).verdict == ALLOWED
    assert await account.tokens() == Counted(0, held=100)
    spent = pb.CommitRequest(hold_id=hold, spent=amount(1, 70, 210))
    answers = [(await account.call("Commit", spent)).settled for _ in range(3)]
    assert answers == [True, False, False]
    assert await account.tokens() == Counted(70)


async def test_a_second_settlement_books_the_difference(account: Account, hold: str) -> None:
    await account.reserve(hold, amount(1, 100, 300))
    await account.call("Commit", pb.CommitRequest(hold_id=hold, spent=amount(1, 70, 210)))
    await account.call("Commit", pb.CommitRequest(hold_id=hold, spent=amount(1, 80, 240)))
    assert await account.tokens() == Counted(80)


async def test_a_released_hold_leaves_nothing(account: Account, hold: str) -> None:
    await account.reserve(hold, amount(1, 100, 300))
    request = pb.ReleaseRequest(hold_id=hold)
    assert (await account.call("Release", request)).released
    assert await account.tokens() == Counted(0)
    assert not (await account.call("Release", request)).released
    unknown = pb.ReleaseRequest(hold_id=f"{hold}-never")
    assert not (await account.call("Release", unknown)).released


async def test_a_hold_that_nobody_settles_keeps_its_least(account: Account, hold: str) -> None:
    request = pb.ReserveRequest(
        hold_id=hold, model=MODEL, amount=amount(1, 100, 300), least=amount(1, 10, 10)
    )
    metadata = account.api.on_behalf(account.name)
    await account.api.brief_limiter.Reserve(request, metadata=metadata)
    assert await account.tokens() == Counted(0, held=100)

    async def expired() -> None:
        rows = await account.api.ledger(account.name, MODEL)
        assert rows["all-tokens"] == Counted(10)
        assert rows["all-money"] == Counted(10)

    await eventually(expired)
    # and what comes late books the difference
    spent = pb.CommitRequest(hold_id=hold, spent=amount(1, 70, 210))
    assert not (await account.call("Commit", spent)).settled
    assert await account.tokens() == Counted(70)


async def test_a_lease_is_granted_renewed_and_returned(account: Account, hold: str) -> None:
    grant = pb.GrantLeaseRequest(
        lease_id=hold, model=MODEL, wanted=amount(10, 1_000, 3_000), least=amount(1, 100, 300)
    )
    lease = await account.call("GrantLease", grant)
    assert lease == pb.GrantLeaseResponse(
        decision=pb.Decision(verdict=ALLOWED), granted=amount(10, 1_000, 3_000), ttl_ms=1_000
    )
    assert (await account.call("GrantLease", grant)).granted == lease.granted
    assert await account.tokens() == Counted(0, held=1_000)
    renew = pb.RenewLeaseRequest(
        lease_id=hold, spent=amount(4, 400, 1_200), wanted=amount(10, 1_000, 3_000)
    )
    renewed = await account.call("RenewLease", renew)
    assert (renewed.decision.verdict, renewed.granted) == (ALLOWED, amount(10, 1_000, 3_000))
    assert await account.tokens() == Counted(400, held=1_000)
    back = pb.ReturnLeaseRequest(lease_id=hold, spent=amount(5, 500, 1_500))
    await account.call("ReturnLease", back)
    rows = await account.api.ledger(account.name, MODEL)
    assert rows == {
        "all-requests": Counted(5),
        "all-tokens": Counted(500),
        "all-money": Counted(1_500),
    }


async def test_a_lease_that_nobody_returns_counts_as_spent_until_it_is(
    account: Account, hold: str
) -> None:
    grant = pb.GrantLeaseRequest(
        lease_id=hold, model=MODEL, wanted=amount(1, 500, 500), least=amount(1, 100, 100)
    )
    await account.call("GrantLease", grant)

    async def expired() -> None:
        assert await account.tokens() == Counted(500)

    await eventually(expired)
    back = pb.ReturnLeaseRequest(lease_id=hold, spent=amount(1, 120, 120))
    await account.call("ReturnLease", back)
    assert await account.tokens() == Counted(120)


async def test_one_lease_takes_at_most_a_fifth_of_what_is_left(api: Api, hold: str) -> None:
    """`expecting` has 100,000 tokens a day, of which a rule holds what is expected."""
    account = Account(api, "expecting")
    grant = pb.GrantLeaseRequest(
        lease_id=hold, model=MODEL, wanted=amount(1, 90_000, 0), least=amount(1, 10, 0)
    )
    assert (await account.call("GrantLease", grant)).granted.tokens == 20_000
    await account.call("ReturnLease", pb.ReturnLeaseRequest(lease_id=hold))


async def test_where_less_than_a_tenth_is_left_each_call_must_be_reserved(
    account: Account, hold: str
) -> None:
    olga = Operator(account.api, account.name)
    await olga.call("SetLimit", subject=olga.subject, limit=1_000, reason="tight")
    await account.reserve(f"{hold}-1", amount(1, 905, 10))
    grant = pb.GrantLeaseRequest(
        lease_id=hold, model=MODEL, wanted=amount(1, 50, 10), least=amount(1, 10, 10)
    )
    answer = await account.call("GrantLease", grant)
    assert (answer.decision.verdict, answer.reserve_each) == (ALLOWED, True)
    assert answer.granted == amount(0, 0, 0)
    assert await account.tokens() == Counted(0, held=905)


async def test_what_never_fits_is_refused_by_its_rule_and_for_good(
    account: Account, hold: str
) -> None:
    told = await account.reserve(hold, amount(1, 10**11, 10))
    assert (told.verdict, told.rule) == (pb.VERDICT_NEVER, "all-tokens")
    assert told.retry_after_ms == 0
    assert await account.tokens() == Counted(0)


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("Reserve", pb.ReserveRequest(), "hold_id"),
        ("Reserve", pb.ReserveRequest(hold_id="x" * 129), "hold_id"),
        ("Reserve", pb.ReserveRequest(hold_id="x", amount=amount(-1, 0, 0)), "amount.requests"),
        ("Reserve", pb.ReserveRequest(hold_id="x", amount=amount(0, 0, 10**15)), "amount.microusd"),
        ("Reserve", pb.ReserveRequest(hold_id="x", route="r" * 129), "route"),
        ("Extend", pb.ExtendRequest(), "hold_id"),
        ("Commit", pb.CommitRequest(hold_id="x", spent=amount(0, -1, 0)), "spent.tokens"),
        ("Release", pb.ReleaseRequest(), "hold_id"),
        ("GrantLease", pb.GrantLeaseRequest(), "lease_id"),
        ("RenewLease", pb.RenewLeaseRequest(), "lease_id"),
        ("ReturnLease", pb.ReturnLeaseRequest(), "lease_id"),
    ],
)
async def test_a_bad_field_is_named(
    account: Account, method: str, request_: Any, field: str
) -> None:
    told = await refused(account.call(method, request_))
    assert (told.code, told.field) == ("INVALID_ARGUMENT", field)


async def test_without_a_principal_nobody_pays(api: Api) -> None:
    told = await refused(api.limiter.GetUsage(pb.GetUsageRequest(), metadata=api.token))
    assert (told.code, told.field) == ("INVALID_ARGUMENT", "context.principal.organisation")


class Operator:
    """olga, at the operators' port."""

    def __init__(self, api: Api, organisation: str) -> None:
        self.api, self.organisation = api, organisation
        self.subject = pb.Subject(rule="all-tokens", organisation=organisation, value=organisation)

    async def call(self, method: str, **fields: Any) -> Any:
        request = getattr(pb, f"{method}Request")(**fields)
        return await getattr(self.api.operators, method)(request, metadata=self.api.operator)


async def test_operators_see_and_mend_what_was_counted(account: Account, hold: str) -> None:
    olga, path = Operator(account.api, account.name), pb.Path(organisation=account.name)
    await account.reserve(hold, amount(1, 100, 300))
    await account.call("Commit", pb.CommitRequest(hold_id=hold, spent=amount(1, 70, 210)))
    adjusted = await olga.call("AdjustUsage", subject=olga.subject, amount=-30, reason="refund")
    assert adjusted.committed == 40
    floor = await olga.call("AdjustUsage", subject=olga.subject, amount=-99, reason="refund")
    assert floor.committed == 0
    await olga.call("AdjustUsage", subject=olga.subject, amount=25, reason="late bill")
    assert (await olga.call("ResetUsage", subject=olga.subject, reason="new")).committed == 25
    rows = (await olga.call("ShowUsage", path=path)).rules
    assert {row.rule: row.committed.tokens for row in rows}["all-tokens"] == 0
    verified = await olga.call("VerifyLedger", organisation=account.name)
    assert verified.entries > 0
    assert not verified.differing


async def test_an_operators_limit_holds_until_it_is_cleared(account: Account, hold: str) -> None:
    olga = Operator(account.api, account.name)
    await olga.call("SetLimit", subject=olga.subject, limit=150, reason="trial")
    assert (await account.reserve(f"{hold}-1", amount(1, 100, 100))).verdict == ALLOWED
    told = await account.reserve(f"{hold}-2", amount(1, 100, 100))
    assert (told.verdict, told.rule) == (BUDGET, "all-tokens")
    assert told.retry_after_ms > 0
    await olga.call("SetLimit", subject=olga.subject, reason="trial over")
    assert (await account.reserve(f"{hold}-3", amount(1, 100, 100))).verdict == ALLOWED


async def test_every_change_stands_in_the_log_with_who_and_why(account: Account) -> None:
    olga = Operator(account.api, account.name)
    await olga.call("SetLimit", subject=olga.subject, limit=7, reason=f"for {account.name}")
    changes = (await olga.call("ListChanges", limit=20)).changes
    (change,) = [row for row in changes if row.reason == f"for {account.name}"]
    assert (change.operator, change.action) == ("olga", "SetLimit")
    assert account.name in change.target
    assert "7" in change.target


@pytest.mark.parametrize(
    ("method", "fields", "code", "field"),
    [
        ("SetLimit", {"reason": "x"}, "INVALID_ARGUMENT", "subject.rule"),
        ("SetLimit", {"subject": ("none", "o", "v"), "reason": "x"}, "NOT_FOUND", "subject.rule"),
        (
            "SetLimit",
            {"subject": ("all-tokens", "o", "o"), "limit": -1, "reason": "x"},
            "INVALID_ARGUMENT",
            "limit",
        ),
        (
            "SetLimit",
            {"subject": ("all-tokens", "o", "o"), "limit": 1},
            "INVALID_ARGUMENT",
            "reason",
        ),
        ("ResetUsage", {"subject": ("all-tokens", "o", "o")}, "INVALID_ARGUMENT", "reason"),
        (
            "AdjustUsage",
            {"subject": ("all-tokens", "o", "o"), "amount": 1 << 60, "reason": "x"},
            "INVALID_ARGUMENT",
            "amount",
        ),
        ("DrainOrganisation", {"reason": "x"}, "INVALID_ARGUMENT", "organisation"),
        ("DrainOrganisation", {"organisation": "o"}, "INVALID_ARGUMENT", "reason"),
        ("ShowUsage", {}, "INVALID_ARGUMENT", "path.organisation"),
        ("VerifyLedger", {}, "INVALID_ARGUMENT", "organisation"),
        ("ListChanges", {"limit": -1}, "INVALID_ARGUMENT", "limit"),
    ],
)
async def test_what_an_operator_may_not_say_is_named(
    api: Api, method: str, fields: dict[str, Any], code: str, field: str
) -> None:
    if "subject" in fields:
        rule, organisation, value = fields["subject"]
        subject = pb.Subject(rule=rule, organisation=organisation, value=value)
        fields = {**fields, "subject": subject}
    told = await refused(Operator(api, "o").call(method, **fields))
    assert (told.code, told.field) == (code, field)


async def test_operators_see_the_rules_in_the_order_of_the_file(api: Api) -> None:
    rows = (await Operator(api, "o").call("ListRules")).rules
    assert [row.name for row in rows][:4] == [
        "all-requests",
        "all-tokens",
        "all-money",
        "three-an-hour",
    ]
    rules = {row.name: row for row in rows}
    assert rules["three-an-hour"] == pb.RuleInForce(
        name="three-an-hour",
        kind="rate",
        level="organisation",
        counts="requests",
        limit=3,
        window="hour",
        holds="strict",
        store_loss="lease",
    )
    assert rules["nothing-a-day"].shadow
    assert rules["expected-tokens"].holds == "expected"
    assert (rules["one-for-cat"].level, rules["beta-tokens"].level) == ("user", "tag")
