"""The replay's provider and its statistics: what a prompt costs, how long it takes, intervals."""

from __future__ import annotations

from array import array

import pytest
from penstock.bench.agent_replay.provider.latency import SLOTS, capacity, service_ms
from penstock.bench.agent_replay.provider.prefix_books import (
    AUTOMATIC,
    WRITES_COST,
    PrefixCache,
    Tokens,
)

KEPT_S = 300.0


def prompt(*tokens: int) -> bytes:
    return array("I", tokens).tobytes()


def test_a_prompt_is_written_once_and_then_read_in_whole_steps() -> None:
    cache = PrefixCache()
    first, longer = prompt(*range(1_300)), prompt(*range(1_500))
    assert cache.read_and_keep(first, 0.0) == (0, 1_280)
    assert cache.read_and_keep(longer, 1.0) == (1_280, 128)


def test_a_prompt_that_differs_at_its_head_reads_nothing() -> None:
    cache = PrefixCache()
    cache.read_and_keep(prompt(*range(2_000)), 0.0)
    assert cache.read_and_keep(prompt(7, *range(1, 2_000)), 1.0) == (0, 1_920)


def test_a_shared_prefix_below_the_minimum_is_not_read() -> None:
    cache = PrefixCache()
    cache.read_and_keep(prompt(*range(2_000)), 0.0)
    departs = prompt(*range(900), *range(10_000, 11_100))
    assert cache.read_and_keep(departs, 1.0) == (0, 1_920)


def test_a_short_prompt_is_neither_read_nor_written() -> None:
    cache = PrefixCache()
    short = prompt(*range(1_023))
    assert [cache.read_and_keep(short, now_s) for now_s in (0.0, 1.0)] == [(0, 0), (0, 0)]


def test_a_prefix_is_kept_for_five_minutes_after_its_last_use() -> None:
    cache = PrefixCache()
    text = prompt(*range(1_024))
    cache.read_and_keep(text, 0.0)
    assert cache.read_and_keep(text, KEPT_S) == (1_024, 0)
    assert cache.read_and_keep(text, 2 * KEPT_S) == (1_024, 0)
    assert cache.read_and_keep(text, 3 * KEPT_S + 1) == (0, 1_024)


def test_a_call_costs_each_token_at_the_price_of_its_kind() -> None:
    tokens = Tokens(input=3_000_000, cached=1_000_000, written=1_000_000, output=1_000_000)
    assert WRITES_COST.microusd(tokens) == 3_000_000 + 300_000 + 3_750_000 + 15_000_000
    assert AUTOMATIC.microusd(tokens) == 2_500_000 + 1_250_000 + 2_500_000 + 10_000_000


def test_cached_tokens_take_no_time_and_company_takes_some() -> None:
    assert service_ms(4_096, 10, 1) - service_ms(512, 10, 1) == pytest.approx(435.4 - 62.0)
    assert service_ms(512, 100, 32) > service_ms(512, 100, 1)
    assert service_ms(0, 0, 1) == service_ms(512, 0, 1)
    assert service_ms(16_384, 0, 1) > service_ms(8_192, 0, 1)


def test_capacity_is_all_slots_over_the_mean_time() -> None:
    assert capacity([1_000.0, 3_000.0]) == SLOTS / 2.0
