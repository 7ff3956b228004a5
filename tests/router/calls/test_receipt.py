"""The receipt of one call: the order of its notes, its route, and money that adds up."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.api.common.v1 import common_pb2, prefix_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.prices.prices import ModelPrice, Prices
from penstock.router.calls.state import ReceiptBuilder, Route
from penstock.router.stages import Bypass, Hit, Miss, Shaped

MTOK = 1_000_000
PRICES = Prices(
    {
        "big": ModelPrice(
            name="big",
            input_microusd_per_mtok=3 * MTOK,
            output_microusd_per_mtok=5 * MTOK,
            cached_input_microusd_per_mtok=MTOK,
            written_input_microusd_per_mtok=4 * MTOK,
        ),
        "small": ModelPrice(name="small", input_microusd_per_mtok=MTOK),
    }
)
"""Of `big` an input token costs 3 micro-dollars, 1 read from the provider's cache, 4 written to it,
and an output token 5; of `small` an input token costs 1.
"""
ROUTE = Route("a-1", "least_added_delay: lowest score", 0.5, 2, 4)
TASK = inference_pb2.Task()


def builder(model: str = "big") -> ReceiptBuilder:
    return ReceiptBuilder("r1", "t1", "run1", model)


def result(
    input_tokens: int = 10, output_tokens: int = 2, **usage: object
) -> inference_pb2.TaskResult:
    return inference_pb2.TaskResult(
        revision="7",
        compute_ms=12.5,
        usage=common_pb2.Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            **usage,  # type: ignore[arg-type]
        ),
    )


def saving(microusd: int, technique: str = "prompt_optimiser") -> common_pb2.Saving:
    return common_pb2.Saving(technique=technique, microusd=microusd)


LOSS = prefix_pb2.PrefixLoss(outcome=prefix_pb2.PREFIX_OUTCOME_EVICTED, lost_tokens=7)


@dataclass(frozen=True)
class Prompt:
    """A prompt that always loses the same, and says of which request, instance and model."""

    asked: list[tuple[str, str, str]]
    model: str = "big"
    loses: bool = True
    share: float = 0.5

    def at_model(self, model: str) -> Prompt:
        return replace(self, model=model)

    def answered(
        self, request_id: str, instance_id: str, usage: common_pb2.Usage
    ) -> prefix_pb2.PrefixLoss | None:
        self.asked.append((request_id, instance_id, self.model))
        return LOSS if self.loses else None


@dataclass(frozen=True)
class Direct:
    """A direct call that would have used so many tokens of input."""

    input: int
    cached: int
    written: int

    def usage(self, reported: common_pb2.Usage) -> common_pb2.Usage:
        return common_pb2.Usage(
            input_tokens=self.input,
            output_tokens=reported.output_tokens,
            cached_input_tokens=self.cached,
            written_input_tokens=self.written,
        )


def shaped(**more: object) -> Shaped:
    """A prompt from which 4 micro-dollars were saved."""
    given_: dict[str, object] = {
        "savings": (saving(4),),
        "notes": ("prompt: json; 20 to 10 tokens",),
        **more,
    }
    return Shaped(TASK, **given_)  # type: ignore[arg-type]


def computed(
    receipt: ReceiptBuilder, answer: inference_pb2.TaskResult | None = None
) -> common_pb2.Receipt:
    """The receipt of an answer that an instance has computed."""
    return receipt.finished(answer or result(), PRICES, 20.0, ROUTE)


def money(receipt: common_pb2.Receipt) -> tuple[int, int, int]:
    """Paid, saved and full price."""
    cost = receipt.cost
    return cost.paid_microusd, cost.saved_microusd, cost.full_price_microusd


def test_a_computed_answers_receipt_says_who_served_how_and_for_how_long() -> None:
    batch = common_pb2.BatchReceipt(queued_ms=3.0, batch_size=4)
    receipt = builder().finished(result(), PRICES, 20.0, ROUTE, batch)
    assert (receipt.request_id, receipt.trace_id, receipt.run_id) == ("r1", "t1", "run1")
    assert (receipt.model, receipt.revision) == ("big", "7")
    assert (receipt.compute_ms, receipt.total_ms) == (12.5, 20.0)
    assert receipt.usage == result().usage
    assert receipt.batch == batch
    assert receipt.route == common_pb2.RouteReceipt(
        instance_id="a-1",
        reason="least_added_delay: lowest score",
        score=0.5,
        attempts=2,
        candidates=4,
    )
    assert not receipt.HasField("cache")
    assert not receipt.notes


def test_a_second_try_beside_the_first_is_marked() -> None:
    receipt = builder()
    receipt.hedged()
    assert computed(receipt).route.hedged


def test_notes_stand_in_the_order_of_the_path_and_the_prompts_last() -> None:
    receipt = builder()
    receipt.note("registry not shared", "auto: cheapest of 2")
    receipt.note("limiter unavailable")
    receipt.looked_up(Miss("ticket", notes=("cache unavailable",)))
    receipt.shaped(shaped())
    receipt.note("fallback from big to small")
    assert list(computed(receipt).notes) == [
        "registry not shared",
        "auto: cheapest of 2",
        "limiter unavailable",
        "cache unavailable",
        "fallback from big to small",
        "prompt: json; 20 to 10 tokens",
    ]


def test_what_a_prompt_lost_of_its_prefix_stands_in_the_receipt() -> None:
    asked: list[tuple[str, str, str]] = []
    receipt = builder()
    receipt.shaped(shaped(prompt=Prompt(asked)))
    assert computed(receipt).prefix_loss == LOSS
    assert asked == [("r1", "a-1", "big")]


def test_a_prompt_that_lost_nothing_has_no_line() -> None:
    receipt = builder()
    receipt.shaped(shaped(prompt=Prompt([], loses=False)))
    assert not computed(receipt).HasField("prefix_loss")


@pytest.mark.parametrize("is_shaped", [True, False])
def test_a_spare_models_prefix_is_its_own_where_it_gets_the_same_prompt(is_shaped: bool) -> None:
    asked: list[tuple[str, str, str]] = []
    receipt = builder()
    receipt.shaped(shaped(prompt=Prompt(asked)))
    receipt.go_on_with("small", shaped=is_shaped)
    assert computed(receipt).HasField("prefix_loss") is is_shaped
    assert asked == ([("r1", "a-1", "small")] if is_shaped else [])


def test_an_answer_costs_its_tokens_and_nothing_was_saved() -> None:
    receipt = computed(builder())
    assert money(receipt) == (10 * 3 + 2 * 5, 0, 40)
    assert not receipt.cost.estimated


def test_what_the_providers_prefix_cache_saves_by_itself_is_named_and_is_no_saving() -> None:
    receipt = computed(builder(), result(10, 0, cached_input_tokens=6, written_input_tokens=2))
    paid = 2 * 3 + 6 * 1 + 2 * 4
    assert (list(receipt.savings), money(receipt)) == ([], (paid, 0, paid))
    assert receipt.cost.provider_saved_microusd == 6 * 2 - 2 * 1


def test_what_it_reads_more_than_for_a_direct_call_is_a_row() -> None:
    # given a prompt of which a direct call would have written 9 of 12 tokens and read none
    receipt = builder()
    receipt.shaped(shaped(savings=(saving(6),), direct=Direct(12, 0, 9)))
    # when 10 tokens are sent, and all but 2 are read
    made = computed(receipt, result(10, 0, cached_input_tokens=8))
    # then what both techniques saved is the difference to the direct call's price
    assert list(made.savings) == [saving(6), saving(8 * 2 + 9 * 1, "prefix_cache")]
    direct = 3 * 3 + 9 * 4
    assert money(made) == (2 * 3 + 8 * 1, direct - 14, direct)
    assert made.cost.provider_saved_microusd == -9


def test_a_spare_model_is_not_compared_with_a_direct_call_of_another() -> None:
    receipt = builder("small")
    receipt.shaped(shaped(savings=(), direct=Direct(10, 0, 0)))
    receipt.go_on_with("big", shaped=True)
    made = computed(receipt, result(10, 0, cached_input_tokens=8))
    assert (list(made.savings), made.cost.provider_saved_microusd) == ([], 16)


def test_a_reused_answer_saves_what_a_direct_call_would_cost_now() -> None:
    # given an answer that once cost 10 tokens that were written, and of which 8 could be read now
    once = result(10, 2, written_input_tokens=10)
    receipt = builder()
    receipt.looked_up(Hit(once, common_pb2.CacheReceipt(), (saving(50, "exact_cache"),)))
    receipt.beside(Direct(10, 8, 2))
    made = receipt.finished(once, PRICES, 1.0)
    direct = 8 * 1 + 2 * 4 + 2 * 5
    assert (list(made.savings), money(made)) == (
        [saving(direct, "exact_cache")],
        (0, direct, direct),
    )
    assert made.cost.provider_saved_microusd == 0


def test_what_asking_the_cache_cost_is_paid() -> None:
    receipt = builder()
    miss = common_pb2.CacheReceipt(outcome=common_pb2.CACHE_OUTCOME_MISS, cost_microusd=3)
    receipt.looked_up(Miss("ticket", miss, savings=(saving(-3, "semantic_cache"),)))
    made = computed(receipt)
    assert made.cache == miss
    assert money(made) == (43, -3, 40)


def test_a_reused_answer_costs_nothing_and_saves_what_it_cost() -> None:
    receipt = builder()
    hit = common_pb2.CacheReceipt(outcome=common_pb2.CACHE_OUTCOME_EXACT_HIT, rule="exact")
    receipt.looked_up(Hit(result(), hit, (saving(40, "exact_cache"),), notes=("reused",)))
    made = receipt.finished(result(), PRICES, 1.0)
    assert money(made) == (0, 40, 40)
    assert (made.model, made.cache, list(made.notes)) == ("big", hit, ["reused"])
    assert not made.HasField("route")
    assert not made.cost.estimated, "nothing was billed, so nothing was guessed"


def test_a_reused_answer_of_another_model_names_that_model() -> None:
    receipt = builder()
    receipt.looked_up(Hit(result(), common_pb2.CacheReceipt(), model="small"))
    assert receipt.finished(result(), PRICES, 1.0).model == "small"


def test_a_reused_answer_is_not_charged_for_the_prefix_it_once_read() -> None:
    receipt = builder()
    receipt.looked_up(Hit(result(), common_pb2.CacheReceipt()))
    made = receipt.finished(result(10, 0, cached_input_tokens=6), PRICES, 1.0)
    assert (money(made), len(made.savings)) == ((0, 0, 0), 0)


def test_a_call_that_bypassed_the_cache_shows_why_and_saves_nothing() -> None:
    receipt = builder()
    asked = common_pb2.CacheReceipt(
        outcome=common_pb2.CACHE_OUTCOME_BYPASSED, rule="asked to bypass"
    )
    receipt.looked_up(Bypass(asked, ("as asked",)))
    made = computed(receipt)
    assert (made.cache, list(made.notes), money(made)) == (asked, ["as asked"], (40, 0, 40))


@pytest.mark.parametrize(
    ("model", "usage", "estimated"),
    [("big", {}, False), ("big", {"estimated": True}, True), ("unpriced", {}, True)],
)
def test_a_cost_is_estimated_where_tokens_or_price_are(
    model: str, usage: dict[str, object], estimated: bool
) -> None:
    made = computed(builder(model), result(**usage))  # type: ignore[arg-type]
    assert made.cost.estimated is estimated


def test_a_model_without_a_price_is_not_billed() -> None:
    assert money(computed(builder("unpriced"), result(10, 2, cached_input_tokens=5))) == (0, 0, 0)


def test_a_shaped_prompt_saves_what_it_spared() -> None:
    receipt = builder()
    receipt.shaped(shaped())
    made = computed(receipt)
    assert list(made.savings) == [saving(4)]
    assert money(made) == (40, 4, 44)


def test_a_spare_model_with_the_shaped_prompt_keeps_what_it_saved() -> None:
    receipt = builder()
    receipt.shaped(shaped())
    receipt.go_on_with("small", shaped=True)
    made = computed(receipt)
    assert list(made.notes) == ["prompt: json; 20 to 10 tokens"]
    assert (made.model, money(made)) == ("small", (10, 4, 14))


def test_a_spare_model_with_the_prompt_as_it_came_has_saved_nothing() -> None:
    receipt = builder()
    receipt.shaped(shaped())
    receipt.go_on_with("small", shaped=False)
    made = computed(receipt)
    assert list(made.notes) == ["prompt: as it was sent, small has another rule"]
    assert (list(made.savings), money(made)) == ([], (10, 0, 10))


def test_a_spare_model_of_a_prompt_that_nobody_shaped_adds_no_notes() -> None:
    receipt = builder()
    receipt.go_on_with("small", shaped=True)
    made = computed(receipt)
    assert (made.model, list(made.notes)) == ("small", [])


SAVINGS = st.lists(st.builds(saving, st.integers(-(10**9), 10**9)), max_size=4).map(tuple)
TOKENS = st.integers(0, 10**6)


@given(
    found=st.one_of(
        st.builds(
            Miss,
            st.none(),
            st.just(common_pb2.CacheReceipt(cost_microusd=7)),
            st.just(()),
            SAVINGS,
            st.none(),
        ),
        st.builds(Bypass),
        st.builds(Hit, st.just(result()), st.just(common_pb2.CacheReceipt()), SAVINGS),
    ),
    prompt_savings=SAVINGS,
    usage=st.tuples(TOKENS, TOKENS, TOKENS, TOKENS),
    spare=st.sampled_from(["", "small", "unpriced"]),
)
def test_the_rows_of_savings_add_up_to_full_price_less_paid(
    found: Hit | Miss | Bypass,
    prompt_savings: tuple[common_pb2.Saving, ...],
    usage: tuple[int, int, int, int],
    spare: str,
) -> None:
    receipt = builder()
    receipt.looked_up(found)
    receipt.shaped(shaped(savings=prompt_savings))
    if spare:
        receipt.go_on_with(spare, shaped=spare == "small")
    plain, cached, written, said = usage
    answer = result(
        plain + cached + written, said, cached_input_tokens=cached, written_input_tokens=written
    )
    route = None if isinstance(found, Hit) else ROUTE
    made = receipt.finished(answer, PRICES, 1.0, route)
    paid, saved, full = money(made)
    assert full - paid == saved == sum(row.microusd for row in made.savings)
