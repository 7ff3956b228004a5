"""The router's admission with a real limiter on a real store, in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.api.router.v1 import router_pb2
from penstock.limiter.api.limiter_service import LimiterServicer
from penstock.limiter.rules import LimitsSection
from penstock.limiter.settings import LimiterSettings
from penstock.limiter.store.connection import StoreTimings
from penstock.limiter.store.ledger_store import LedgerStore
from penstock.prices.prices import ModelPrice, Prices, PricesSection
from penstock.router.admission.limiter_admission import LimiterAdmission
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.stages import Admitted, Spent, perform
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import unavailable
from penstock.rpc.peers.in_process import InProcessPeer
from penstock.service.current import Current
from penstock.service.store import embedded_store
from penstock.tasks.kind import Estimate, Kind
from penstock.tasks.kinds import EMBED, GENERATE
from penstock.testkit.clock import FakeClock
from penstock.testkit.cuttable_store import CuttableStore
from penstock.testkit.eventually import eventually
from penstock.testkit.server import peer_to

LIMITER = pb.DESCRIPTOR.services_by_name["LimiterService"]
PRICES = PricesSection(
    models=(
        ModelPrice(
            name="chat",
            input_microusd_per_mtok=1_000_000,
            output_microusd_per_mtok=2_000_000,
            max_output_tokens=500,
        ),
    )
)
"""Of `chat` an input token costs 1 micro-dollar and an output token 2; `mini` has no price."""


def request(kind: Kind, model: str, estimate: Estimate, /, **options: Any) -> ResolvedRequest:
    """A request of this size; `options` are the caller's."""
    given = router_pb2.CallOptions(**options)
    return ResolvedRequest(given, kind, inference_pb2.Task(), model, estimate)


SHORT_TEXT = request(EMBED, "mini", Estimate(1, 10, 0, 50))
"""10 tokens as estimated, 50 at most."""
CHAT = request(GENERATE, "chat", Estimate(1, 20, 100, 40))
"""At most 40 input and 100 output tokens: 240 micro-dollars."""
OPEN_CHAT = request(GENERATE, "chat", Estimate(1, 20, 0, 40))
"""The same with its length left open."""


def call(priority: int = 2) -> Call:
    """A call of ann at acme that has all the time in the world."""
    return Call(Principal("acme", user="ann"), priority=priority, deadline_s=1e12)


def receipt(tokens: int, paid: int = 0) -> common_pb2.Receipt:
    """The receipt of an answer that took so many tokens and cost so much."""
    made = common_pb2.Receipt()
    made.usage.input_tokens, made.cost.paid_microusd = tokens, paid
    return made


def budget(counts: str, limit: int, **more: object) -> dict[str, object]:
    """An hourly budget as a rule of the limiter."""
    return {
        "name": "b",
        "kind": "budget",
        "counts": counts,
        "limit": limit,
        "window": "hour",
        "calendar": True,
        **more,
    }


class ObservedPeer:
    """The way to the limiter: records what was asked and answered, and can be cut off."""

    def __init__(self, inner: InProcessPeer) -> None:
        self._inner = inner
        self.calls: list[str] = []
        """Methods in the order in which they were asked for."""
        self.verdicts: list[tuple[str, int]] = []
        """Methods and the limiter's decisions, in the order in which they were answered."""
        self.is_cut_off = False
        self.loses_answers = False
        """Whether what is asked is done and its answer lost on the way."""
        self.store_losses = Counter[str]()
        """By method, how many requests are still answered as a limiter answers whose store is
        lost.
        """

    async def call(self, method: str, request: Any, call: Call) -> Any:
        """See Peer."""
        self.calls.append(method)
        if self.is_cut_off:
            raise unavailable("cut off")
        if self.store_losses[method]:
            self.store_losses[method] -= 1
            lost = pb.Decision(verdict=pb.VERDICT_STORE_UNAVAILABLE, rule="b")
            return pb.ReserveResponse(decision=lost)
        answer = await self._inner.call(method, request, call)
        if self.loses_answers:
            raise unavailable("the answer was lost")
        if hasattr(answer, "decision"):
            self.verdicts.append((method, answer.decision.verdict))
        return answer

    def stream(self, method: str, request: Any, call: Call) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        await self._inner.close()


@dataclass
class Limited:
    """An admission with its limiter, and what a test may look into."""

    admission: LimiterAdmission
    limiter: LimiterServicer
    store: LedgerStore
    connection: CuttableStore
    peer: ObservedPeer
    clock: FakeClock

    async def admit(self, request: ResolvedRequest, by: Call | None = None) -> Admitted:
        """Let a call go on; raises Fault."""
        return await self.admission.admit(by or call(), request)

    async def settle(
        self,
        admitted: Admitted,
        receipt: common_pb2.Receipt | None = None,
        spent: Spent | None = None,
    ) -> None:
        """Book what a call has spent, and wait until that is done."""
        await perform(self.admission.settle(admitted, receipt, spent))

    async def books(self, model: str = "chat") -> tuple[int, int]:
        """What is committed and what is held of the first rule, in the unit that it counts."""
        usage = await self.limiter.GetUsage(pb.GetUsageRequest(model=model), call())
        rule = usage.rules[0]
        return _total(rule.committed), _total(rule.held)

    async def close(self) -> None:
        """Return every lease and settle what is still to be settled, in virtual time."""
        closing = asyncio.create_task(self.admission.close())

        async def closed() -> bool:
            await self.clock.advance(1.0)
            return closing.done()

        await eventually(closed, every_s=0)
        await closing
        await self.store.close()

    async def assert_books_balance(self) -> None:
        """Nothing in the ledger contradicts the counters."""
        _, differences = await self.store.verify("acme")
        assert differences == []


def _total(amount: pb.Amount) -> int:
    return amount.requests + amount.tokens + amount.microusd


StartLimited = Callable[..., Limited]


@pytest.fixture
async def start_limited(tmp_path: Path) -> AsyncIterator[StartLimited]:
    """Makes an admission under these rules; closed afterwards."""
    started: list[Limited] = []
    async with embedded_store(tmp_path / "store") as url:

        def start(
            *rules: dict[str, object],
            on_loss: Literal["closed", "open"] = "closed",
            overdraft_share: float = 0.0,
        ) -> Limited:
            clock = FakeClock(1_800_000_000.0)
            connection = CuttableStore(url)
            client: Any = connection
            store = LedgerStore(
                client,
                clock,
                StoreTimings(5.0, 1.0),
                now_us=lambda: round(clock.time() * 1e6),
            )
            section = LimitsSection.model_validate({"rules": list(rules)})
            limiter = LimiterServicer(LimiterSettings(), section, PRICES, store, clock)
            peer = ObservedPeer(peer_to(LIMITER, limiter, clock))
            prices = Current(Prices.from_section(PRICES))
            admission = LimiterAdmission(
                peer,
                prices,
                clock,
                on_loss,
                overdraft_share=overdraft_share,
                overdrafts=tmp_path / "overdrafts",
            )
            started.append(Limited(admission, limiter, store, connection, peer, clock))
            return started[-1]

        yield start
        for limited in started:
            await limited.close()
