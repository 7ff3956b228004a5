"""Intervals of figures: that they cover what they claim to, and when there is none."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

import pytest
from penstock.bench.harness.intervals import MIN_BLOCKS, bootstrap, means, medians, of_share
from scipy import stats

TRIALS = 200
"""Trials of a coverage: its standard error at 95 % is 1.5 %."""


def mean(blocks: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(blocks)}


@pytest.mark.parametrize("blocks", [MIN_BLOCKS, 20])
def test_the_interval_of_a_mean_covers_it_also_with_few_blocks(blocks: int) -> None:
    rng = random.Random(1)
    covered = 0
    for _ in range(TRIALS):
        drawn = [rng.gauss(5.0, 2.0) for _ in range(blocks)]
        interval = bootstrap(drawn, mean, "seeds", draws=1_000)["mean"]
        covered += interval.low <= 5.0 <= interval.high
    assert covered / TRIALS >= 0.91


def test_the_interval_of_a_mean_is_as_wide_as_students() -> None:
    rng = random.Random(2)
    drawn = [rng.gauss(0.0, 1.0) for _ in range(12)]
    interval = bootstrap(drawn, mean, "rounds", draws=20_000)["mean"]
    student = 2 * stats.t.ppf(0.975, 11) * statistics.stdev(drawn) / math.sqrt(12)
    assert interval.high - interval.low == pytest.approx(student, rel=0.05)
    assert (interval.n, interval.of) == (12, "rounds")


def test_what_lies_within_a_block_is_not_taken_apart() -> None:
    def share(blocks: Sequence[Sequence[int]]) -> dict[str, float]:
        items = [item for block in blocks for item in block]
        return {"share": sum(items) / len(items)}

    together = [[number % 2] * 50 for number in range(20)]
    apart = [[number % 2] for block in together for number in block]
    wide = bootstrap(together, share, "intents")["share"]
    narrow = bootstrap(apart, share, "items")["share"]
    ends = [of_share(500, 1_000, "items"), narrow]
    assert wide.high - wide.low > 4 * max(end.high - end.low for end in ends)


def test_the_same_blocks_have_the_same_interval() -> None:
    rows = [{"a": number, "b": -number} for number in range(MIN_BLOCKS)]
    assert bootstrap(rows, medians, "rounds") == bootstrap(rows, medians, "rounds")
    assert set(bootstrap(rows, means, "rounds")) == {"a", "b"}


def test_too_few_blocks_have_no_interval() -> None:
    assert bootstrap([1.0] * (MIN_BLOCKS - 1), mean, "rounds") == {}


def test_a_figure_that_is_no_number_in_some_draw_has_no_interval() -> None:
    blocks = [float("nan"), 1.0, 2.0, 3.0, 4.0, 5.0]
    assert bootstrap(blocks, mean, "seeds", draws=200) == {}


def test_none_of_n_follows_the_rule_of_three() -> None:
    interval = of_share(0, 1_000, "calls")
    assert interval.low == 0.0
    assert interval.high == pytest.approx(1 - 0.025 ** (1 / 1_000))
    assert 3 / 1_000 < interval.high < 4 / 1_000


@pytest.mark.parametrize(("hits", "items"), [(0, 0), (3, 2), (-1, 5)])
def test_what_is_no_share_is_refused(hits: int, items: int) -> None:
    with pytest.raises(ValueError, match="is no share"):
        of_share(hits, items, "calls")


def test_the_exact_interval_of_a_share_covers_it_wherever_it_lies() -> None:
    for share in (0.01, 0.1, 0.5):
        covering = sum(
            stats.binom.pmf(hits, 40, share)
            for hits in range(41)
            if (found := of_share(hits, 40, "calls")).low <= share <= found.high
        )
        assert covering >= 0.95
