"""The result of a load as tables, and as values for scripts."""

from __future__ import annotations

from typing import Any

from penstock.cli.load.open_loop import LoadResult
from penstock.cli.output import plain, table
from rich.console import RenderableType
from rich.text import Text

QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
HISTOGRAM_ROWS = 16
BAR_WIDTH = 40
MAX_LATE_SHARE = 0.1
"""A generator later than this share of the median latency makes the figures doubtful."""


def load_report(result: LoadResult, rate: float) -> list[RenderableType]:
    """Rates, quantiles and histogram for people, and what makes the figures doubtful."""
    answered = result.latencies.total
    failed = sum(result.failures.values())
    head = Text(
        f"{answered:,} answered, {failed:,} failed, {result.skipped:,} not sent in "
        f"{result.elapsed_s:.1f} s: {result.answered_per_s:.1f} answers/s of {rate:g} asked"
    )
    quantiles = table(*(f"p{share * 100:g}" for share in QUANTILES), "max", "mean")
    latencies = result.latencies
    values = [*map(latencies.quantile_ms, QUANTILES), latencies.max_ms, latencies.mean_ms]
    quantiles.add_row(*(f"{value:.2f} ms" for value in values))
    parts: list[RenderableType] = [head, *_doubts(result)]
    if answered:
        parts += [Text(""), quantiles, Text(""), *_bars(result)]
    if failed:
        failures = table("failed with", "calls", right=("calls",))
        for code, count in result.failures.most_common():
            failures.add_row(plain(code), f"{count:,}")
        parts += [Text(""), failures]
    return parts


def load_data(result: LoadResult, rate: float) -> dict[str, Any]:
    """The same as values."""
    latencies = result.latencies
    return {
        "asked_per_s": rate,
        "answered_per_s": result.answered_per_s,
        "answered": latencies.total,
        "failures": dict(result.failures),
        "skipped": result.skipped,
        "late_ms": result.late_ms,
        "elapsed_s": result.elapsed_s,
        "latency_ms": {
            **{f"p{share * 100:g}": latencies.quantile_ms(share) for share in QUANTILES},
            "max": latencies.max_ms,
            "mean": latencies.mean_ms,
        },
        "histogram": [
            {"from_ms": low, "to_ms": high, "count": count}
            for low, high, count in latencies.rows(HISTOGRAM_ROWS)
        ],
    }


def _doubts(result: LoadResult) -> list[Text]:
    doubts = []
    if result.skipped:
        doubts.append("too many calls were unanswered, so some were not sent; lower --rate")
    median_ms = result.latencies.quantile_ms(0.5)
    if median_ms and result.late_ms > MAX_LATE_SHARE * median_ms:
        doubts.append(
            f"a call was sent up to {result.late_ms:.1f} ms after it was due, which counts as "
            "latency: this machine was busy, or the rate is too high for one generator"
        )
    return [Text(doubt, style="yellow") for doubt in doubts]


def _bars(result: LoadResult) -> list[RenderableType]:
    """The histogram: a row for each range of latencies, a bar as long as its share."""
    rows = result.latencies.rows(HISTOGRAM_ROWS)
    highest = max(count for _, _, count in rows)
    shown = table("latency", "calls", "", right=("latency", "calls"))
    for low, high, count in rows:
        bar = "█" * round(count / highest * BAR_WIDTH) or ("▏" if count else "")
        shown.add_row(f"{low:.2f}–{high:.2f} ms", f"{count:,}", bar)
    return [shown]
