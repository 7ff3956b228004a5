"""The picture of a replay as SVG: demand, and the capacity that was there for it.

Text only; nothing is decided here.
"""

from __future__ import annotations

import datetime
from html import escape

WIDTH, HEIGHT, EDGE = 960, 320, 48
MOST_POINTS = 1200
DEMAND, CAPACITY = "#c2410c", "#1d4ed8"


def svg(title: str, times_s: list[float], demand: list[float], capacity: list[float]) -> str:
    """Two lines over time, work a second each; of a long trace the most in each of 1200 parts, so
    that no peak is lost.
    """
    top = max(*demand, *capacity, 1e-9)
    span_s = max(times_s[-1] - times_s[0], 1e-9)
    lines = []
    for values, colour in ((capacity, CAPACITY), (demand, DEMAND)):
        places = (
            (
                EDGE + (time - times_s[0]) / span_s * (WIDTH - 2 * EDGE),
                HEIGHT - EDGE - value / top * (HEIGHT - 2 * EDGE),
            )
            for time, value in _thinned(times_s, values)
        )
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        lines.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.2" points="{points}"/>'
        )
    begins, ends = (_moment(time) for time in (times_s[0], times_s[-1]))
    texts = (
        (EDGE, 20, "start", "#111", title),
        (EDGE, 38, "start", DEMAND, "demand, work a second"),
        (EDGE + 170, 38, "start", CAPACITY, "capacity for it"),
        (EDGE - 4, EDGE + 4, "end", "#111", f"{top:.3g}"),
        (EDGE - 4, HEIGHT - EDGE, "end", "#111", "0"),
        (EDGE, HEIGHT - EDGE + 18, "start", "#111", begins),
        (WIDTH - EDGE, HEIGHT - EDGE + 18, "end", "#111", ends),
    )
    words = [
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{fill}">{escape(text)}</text>'
        for x, y, anchor, fill, text in texts
    ]
    axis = f'<path d="M{EDGE} {EDGE}V{HEIGHT - EDGE}H{WIDTH - EDGE}" fill="none" stroke="#999"/>'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">'
    )
    return "\n".join(
        [head, '<rect width="100%" height="100%" fill="#fff"/>', axis, *lines, *words, "</svg>", ""]
    )


def _thinned(times_s: list[float], values: list[float]) -> list[tuple[float, float]]:
    step = max(1, -(-len(values) // MOST_POINTS))
    return [(times_s[at], max(values[at : at + step])) for at in range(0, len(values), step)]


def _moment(unix_s: float) -> str:
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC).isoformat(
        sep=" ", timespec="minutes"
    )
