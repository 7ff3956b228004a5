"""The picture of a replay as SVG: demand, and the capacity that was there for it."""

from __future__ import annotations

import datetime
from html import escape

WIDTH, HEIGHT, MARGIN = 960, 320, 48
MAX_POINTS = 1200
DEMAND_COLOUR, CAPACITY_COLOUR, TEXT_COLOUR = "#c2410c", "#1d4ed8", "#111"


def svg(title: str, times_s: list[float], demand: list[float], capacity: list[float]) -> str:
    """Return a picture with two lines over time, in work a second.

    Of a long trace, each of 1200 parts shows its maximum, so that no peak is lost.
    """
    top = max(*demand, *capacity, 1e-9)
    lines = [
        f'<polyline fill="none" stroke="{colour}" stroke-width="1.2" '
        f'points="{_points(times_s, values, top)}"/>'
        for values, colour in ((capacity, CAPACITY_COLOUR), (demand, DEMAND_COLOUR))
    ]
    bottom, right = HEIGHT - MARGIN, WIDTH - MARGIN
    axis = f'<path d="M{MARGIN} {MARGIN}V{bottom}H{right}" fill="none" stroke="#999"/>'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">'
    )
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    texts = _texts(title, times_s, top)
    return "\n".join([head, background, axis, *lines, *texts, "</svg>", ""])


def _points(times_s: list[float], values: list[float], top: float) -> str:
    span_s = max(times_s[-1] - times_s[0], 1e-9)
    points = (
        (
            MARGIN + (time_s - times_s[0]) / span_s * (WIDTH - 2 * MARGIN),
            HEIGHT - MARGIN - value / top * (HEIGHT - 2 * MARGIN),
        )
        for time_s, value in _thinned(times_s, values)
    )
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _texts(title: str, times_s: list[float], top: float) -> list[str]:
    bottom, right = HEIGHT - MARGIN, WIDTH - MARGIN
    rows = (
        (MARGIN, 20, "start", TEXT_COLOUR, title),
        (MARGIN, 38, "start", DEMAND_COLOUR, "demand, work a second"),
        (MARGIN + 170, 38, "start", CAPACITY_COLOUR, "capacity for it"),
        (MARGIN - 4, MARGIN + 4, "end", TEXT_COLOUR, f"{top:.3g}"),
        (MARGIN - 4, bottom, "end", TEXT_COLOUR, "0"),
        (MARGIN, bottom + 18, "start", TEXT_COLOUR, _moment(times_s[0])),
        (right, bottom + 18, "end", TEXT_COLOUR, _moment(times_s[-1])),
    )
    return [
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
        for x, y, anchor, colour, text in rows
    ]


def _thinned(times_s: list[float], values: list[float]) -> list[tuple[float, float]]:
    step = max(1, -(-len(values) // MAX_POINTS))
    return [(times_s[at], max(values[at : at + step])) for at in range(0, len(values), step)]


def _moment(unix_s: float) -> str:
    moment = datetime.datetime.fromtimestamp(unix_s, datetime.UTC)
    return moment.isoformat(sep=" ", timespec="minutes")
