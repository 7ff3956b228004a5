"""From tokens to micro-dollars: kinds of tokens, rounding, and no price against the price 0."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.api.common.v1 import common_pb2
from penstock.prices.prices import ModelPrice, Prices, PricesSection
from penstock.service.default_models import DEFAULT_MODELS
from pydantic import ValidationError

PRICE = ModelPrice(
    name="model",
    input_microusd_per_mtok=3_000_000,
    output_microusd_per_mtok=15_000_000,
    cached_input_microusd_per_mtok=300_000,
    written_input_microusd_per_mtok=3_750_000,
)
PRICES = Prices.from_section(PricesSection(models=(PRICE, ModelPrice(name="free"))))


@pytest.mark.parametrize(
    ("usage", "paid"),
    [
        ({"input_tokens": 1_000}, 3_000),
        ({"input_tokens": 1_000, "cached_input_tokens": 900}, 300 + 270),
        ({"input_tokens": 1_000, "written_input_tokens": 1_000}, 3_750),
        ({"output_tokens": 10}, 150),
        ({"output_tokens": 10, "reasoning_tokens": 4}, 150),
        ({"input_tokens": 1, "cached_input_tokens": 1}, 1),  # 0.3 micro-dollars are rounded up
        ({}, 0),
    ],
)
def test_each_kind_of_token_has_its_price(usage: dict[str, int], paid: int) -> None:
    assert PRICES.paid_microusd("model", common_pb2.Usage(**usage)) == paid


@pytest.mark.parametrize("name", DEFAULT_MODELS)
def test_the_models_that_come_with_penstock_are_free_unless_the_file_says_otherwise(
    name: str,
) -> None:
    usage = common_pb2.Usage(input_tokens=1_000_000)
    assert PRICES.paid_microusd(name, usage) == 0
    priced = PricesSection(models=(ModelPrice(name=name, input_microusd_per_mtok=7),))
    assert Prices.from_section(priced).paid_microusd(name, usage) == 7


def test_no_price_is_not_the_price_0() -> None:
    usage = common_pb2.Usage(input_tokens=5)
    assert PRICES.paid_microusd("free", usage) == 0
    assert PRICES.paid_microusd("unlisted", usage) is None
    assert PRICES.cost_bound_microusd("unlisted", 1, 1) is None


@given(st.integers(0, 9_999), st.integers(0, 9_999), st.integers(0, 9_999), st.integers(0, 9_999))
def test_what_is_paid_never_exceeds_the_bound(
    plain: int, cached: int, written: int, output: int
) -> None:
    usage = common_pb2.Usage(
        input_tokens=plain + cached + written,
        cached_input_tokens=cached,
        written_input_tokens=written,
        output_tokens=output,
    )
    paid = PRICES.paid_microusd("model", usage)
    bound = PRICES.cost_bound_microusd("model", usage.input_tokens, output)
    assert paid is not None
    assert bound is not None
    assert paid <= bound


@pytest.mark.parametrize(
    ("model", "tokens", "written", "microusd"),
    [
        ("model", 1_000, 0, 3_000 - 300),
        ("model", 1_000, 4_000, 3_750 - 300),
        ("model", 1_000, 400, 400 * 3.75 + 600 * 3 - 300),
        ("free", 1_000, 0, 0),
        ("unpriced", 1_000, 0, 0),
        ("model", 0, 500, 0),
    ],
)
def test_a_lost_prefix_costs_what_was_paid_for_it_less_what_reading_it_would_have(
    model: str, tokens: int, written: int, microusd: int
) -> None:
    assert PRICES.lost_prefix_microusd(model, tokens, written) == microusd


def test_two_prices_of_one_model_are_refused() -> None:
    with pytest.raises(ValidationError, match="duplicate model name: a"):
        PricesSection(models=(ModelPrice(name="a"), ModelPrice(name="a")))
