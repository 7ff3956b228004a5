"""What `overhead` compares with: an M/G/c queue, and texts that the cache has."""

from __future__ import annotations

import math

import numpy as np
import pytest
from penstock.bench.harness.echo import echo_process
from penstock.bench.harness.load import closed_loop, quantile
from penstock.bench.overhead.queue_model import queue_latencies_ms
from penstock.bench.overhead.stacks import Choices, instant_stack
from penstock.bench.overhead.stored_texts import StoredTexts, zipf_draws
from penstock.router.caching.near_cache import LIFE_S

CALLS = 400_000


def exponential_ms(mean_ms: float) -> list[float]:
    """Service times at the middles of equal parts of an exponential distribution."""
    return [-mean_ms * math.log(1 - (at + 0.5) / 10_000) for at in range(10_000)]


def test_one_server_with_exponential_times_has_exponential_latencies() -> None:
    service_ms, load = exponential_ms(10), 0.7
    latencies = queue_latencies_ms(service_ms, 1, load, CALLS, np.random.default_rng(1))
    mean_ms = 10 / (1 - load)
    assert quantile(latencies, 0.5) == pytest.approx(mean_ms * math.log(2), rel=0.05)
    assert quantile(latencies, 0.99) == pytest.approx(mean_ms * math.log(100), rel=0.08)


def test_two_servers_wait_as_erlang_says() -> None:
    load = 0.7
    latencies = queue_latencies_ms(exponential_ms(10), 2, load, CALLS, np.random.default_rng(2))
    waits = 2 * load**2 / (1 + load)  # Erlang's C for two servers
    assert np.mean(latencies) == pytest.approx(10 + waits * 10 / (2 * (1 - load)), rel=0.05)


def test_more_servers_at_the_same_load_wait_less() -> None:
    rng = np.random.default_rng(3)
    one, four = (queue_latencies_ms([10.0], servers, 0.7, 50_000, rng) for servers in (1, 4))
    assert np.mean(four) < np.mean(one)
    assert min(*one, *four) == pytest.approx(10)


@pytest.mark.parametrize(
    ("service_ms", "servers", "load"), [([], 1, 0.5), ([1.0], 0, 0.5), ([1.0], 1, 1.0)]
)
def test_a_queue_that_has_no_end_or_no_server_is_refused(
    service_ms: list[float], servers: int, load: float
) -> None:
    with pytest.raises(ValueError, match="an M/G/c queue needs"):
        queue_latencies_ms(service_ms, servers, load, 10, np.random.default_rng(4))


def test_the_first_key_is_drawn_as_often_as_zipf_says() -> None:
    drawn = zipf_draws(keys=100, draws=200_000)
    harmonic = sum(1 / rank for rank in range(1, 101))
    assert np.mean(drawn == 0) == pytest.approx(1 / harmonic, rel=0.03)
    assert np.mean(drawn == 9) == pytest.approx(1 / (10 * harmonic), rel=0.1)


@pytest.mark.processes
async def test_texts_that_were_filled_are_hits_of_which_the_cache_serves_some() -> None:
    with echo_process() as echo:
        async with instant_stack(echo, Choices()) as stack:
            texts = StoredTexts(stack, keys=200)
            await texts.fill()
            loaded = await closed_loop(texts.send, 8, 1.5 * LIFE_S)
            assert len(loaded.latencies_ms) > 0
            assert 0 < await texts.cache_share() <= 1
