"""The choice of a model, the chain of fallbacks, affinity, and a run's limits, without any
network.
"""

from __future__ import annotations

import asyncio
import math

import grpc
import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.prices.prices import ModelPrice, Prices
from penstock.router.calls.affinity import PrefixIndex, Sessions, prefix_blocks
from penstock.router.requests.work import Work
from penstock.router.routing.model_choice import Models
from penstock.router.runs.runs import Runs
from penstock.router.settings import ModelRoute, RoutesSection
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.testkit.clock import FakeClock

CHEAP = ModelRoute(name="cheap", quality=0.6, max_input_tokens=1_000)
GOOD = ModelRoute(name="good", quality=0.9, capabilities=("tools",))
BEST = ModelRoute(name="best", quality=0.97, capabilities=("tools", "vision"))
ROUTES = RoutesSection(models=(BEST, GOOD, CHEAP), fallbacks={"good": ("best", "good", "cheap")})
PRICES = Prices(
    {
        name: ModelPrice(name=name, input_microusd_per_mtok=price)
        for name, price in (("cheap", 100_000), ("good", 3_000_000), ("best", 9_000_000))
    }
)
SERVING = ("cheap", "good", "best")


def work(tokens: int = 100) -> Work:
    return Work("generate", "", 1, tokens, 100)


@pytest.mark.parametrize(
    ("tokens", "needs", "least", "serving", "chain"),
    [
        (100, (), 0.0, SERVING, ("cheap", "good", "best")),
        (100, (), 0.8, SERVING, ("good", "best")),
        (100, ("vision",), 0.0, SERVING, ("best",)),
        (5_000, (), 0.0, SERVING, ("good", "best")),
        (100, (), 0.0, ("best",), ("best",)),
        (100, (), 0.99, SERVING, ("default",)),
    ],
)
def test_auto_takes_the_cheapest_that_is_good_enough(
    tokens: int,
    needs: tuple[str, ...],
    least: float,
    serving: tuple[str, ...],
    chain: tuple[str, ...],
) -> None:
    found = Models(ROUTES, "default", lambda: PRICES).chain(
        "auto", work(tokens), needs, least, serving, ()
    )
    assert found.models == chain
    assert found.reason.startswith("auto")


def test_a_chain_names_each_model_once_and_ends() -> None:
    models = Models(ROUTES, "default", lambda: PRICES)
    assert models.chain("good", work(), (), 0.0, SERVING, ("cheap",)).models == (
        "good",
        "cheap",
        "best",
    )
    assert models.chain("", work(), (), 0.0, SERVING, ()).models == ("default",)
    assert (
        len(
            models.chain(
                "a", work(), (), 0.0, SERVING, [f"m{number}" for number in range(50)]
            ).models
        )
        == 5
    )


def test_what_callers_say_moves_the_quality_and_each_answer_counts_once() -> None:
    models = Models(ROUTES, "default", lambda: PRICES)
    for number in range(60):
        models.served(f"r{number}", "cheap")
        models.judge(f"r{number}", False)
        models.judge(f"r{number}", False)
    models.judge("unknown", True)
    assert models.quality("cheap") == pytest.approx(0.6 * 20 / 80)
    assert models.chain("auto", work(), (), 0.5, SERVING, ()).models[0] == "good"


def test_sessions_match_exactly_and_the_oldest_is_forgotten() -> None:
    sessions = Sessions(most=2)
    sessions.bind("session-1", ("a", 0))
    assert (sessions.instance_of("session-1"), sessions.instance_of("session-12")) == (
        ("a", 0),
        ("", 0),
    )
    for name in ("x", "y"):
        sessions.bind(name, ("b", 0))
    assert sessions.instance_of("session-1") == ("", 0)


def test_the_index_matches_the_longest_run_from_the_start_and_keeps_the_head_longest() -> None:
    index = PrefixIndex(blocks_an_instance=4)
    index.sent("a", ("h", "1", "2"))
    assert index.matched("a", ("h", "1", "9")) == 2
    assert index.matched("a", ("1", "2")) == 2
    assert index.matched("b", ("h",)) == 0
    index.sent("a", ("h", "3", "4"))
    assert index.matched("a", ("h", "3", "4")) == 3
    assert index.matched("a", ("h", "1", "2")) <= 2
    index.forget("a")
    assert index.matched("a", ("h",)) == 0


def test_blocks_cover_everything_before_them() -> None:
    def task(*texts: str) -> inference_pb2.GenerateTask:
        return inference_pb2.GenerateTask(
            messages=[inference_pb2.Message(role="user", content=text) for text in texts]
        )

    longer, shorter = (
        prefix_blocks("m", task("x" * 5000, "y" * 5000)),
        prefix_blocks("m", task("x" * 5000)),
    )
    assert longer[: len(shorter) - 1] == shorter[:-1]
    assert not set(prefix_blocks("m", task("z" + "x" * 4999, "y" * 5000))) & set(longer)
    assert not set(prefix_blocks("other", task("x" * 5000))) & set(shorter)


CALL = Call(Principal("acme"), run_id="r")


def test_the_first_call_sets_the_runs_deadline() -> None:
    clock = FakeClock(100.0)
    runs = Runs(clock)
    assert runs.enter(pb.CallOptions(run_deadline_ms=5_000), CALL).deadline_s == 105.0
    assert runs.enter(pb.CallOptions(run_deadline_ms=60_000), CALL).deadline_s == 105.0
    assert runs.enter(pb.CallOptions(), Call(Principal("rival"), run_id="r")).deadline_s == math.inf


def test_a_run_that_has_spent_its_money_is_over() -> None:
    runs = Runs(FakeClock())
    call = runs.enter(pb.CallOptions(run_max_cost_microusd=10), CALL)
    runs.spent(call, 7)
    runs.enter(pb.CallOptions(run_max_cost_microusd=1_000), CALL)
    runs.spent(call, 7)
    with pytest.raises(Fault) as caught:
        runs.enter(pb.CallOptions(), CALL)
    assert (caught.value.code, caught.value.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "RUN_BUDGET_EXHAUSTED",
    )


async def test_a_cancelled_run_ends_its_calls_and_takes_no_more() -> None:
    runs = Runs(FakeClock())

    async def work_on() -> None:
        with runs.part_of(CALL):
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(work_on()) for _ in range(3)]
    await asyncio.sleep(0)
    assert runs.cancel("rival", "r") == 0
    assert runs.cancel("acme", "r") == 3
    faults = await asyncio.gather(*tasks, return_exceptions=True)
    assert [fault.reason for fault in faults if isinstance(fault, Fault)] == ["RUN_CANCELLED"] * 3
    with pytest.raises(Fault):
        runs.enter(pb.CallOptions(), CALL)
