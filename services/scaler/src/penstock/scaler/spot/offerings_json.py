"""What is learnt of spot zones, as text and back, so that a restart forgets neither lives nor
back-off nor prices. No I/O here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from penstock.scaler.spot.offerings import AGE_EDGES_S, Hazard, Offerings
from penstock.scaler.spot.price_forecast import PriceState

AGES = len(AGE_EDGES_S) + 1
KEPT_MOMENTS = 500
"""Of which zones were up, so many moments are kept: what the solver draws its scenarios from."""


def dump(zones: Offerings) -> str:
    """As JSON."""
    rows = {
        name: {
            "hazard": asdict(zone.hazard),
            "up_since_s": zone.up_since_s,
            "retry_at_s": zone.retry_at_s if math.isfinite(zone.retry_at_s) else None,
            "failures": zone.failures,
            "prices": asdict(zone.prices.state)
            if math.isfinite(zone.prices.state.seen_s)
            else None,
        }
        for name, zone in zones.by_name.items()
    }
    moments = ["".join("01"[up] for up in row) for row in list(zones.history)[-KEPT_MOMENTS:]]
    return json.dumps(
        {"zones": rows, "pooled": asdict(zones.pooled), "order": list(rows), "history": moments}
    )


def load(text: str, zones: Offerings, now_s: float) -> None:
    """Take up what was kept; places that are configured no more are left out, those that are new
    begin with nothing.

    Raises:
        ValueError: it is no such text; nothing has been changed.
    """
    try:
        kept = json.loads(text)
        pooled = _hazard(kept["pooled"])
        rows = {name: _row(row) for name, row in kept["zones"].items() if name in zones.by_name}
        order = [str(name) for name in kept["order"]]
        moments = [tuple(mark == "1" for mark in line) for line in kept["history"]]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"what was kept of the zones cannot be read: {error}") from None
    zones.pooled = pooled
    for name, (hazard, up_since_s, retry_at_s, failures, prices) in rows.items():
        zone = zones.by_name[name]
        zone.hazard, zone.up_since_s, zone.retry_at_s, zone.failures = (
            hazard,
            up_since_s,
            retry_at_s,
            failures,
        )
        if prices is not None:
            zone.prices.state = prices
            zones.reprice(name, now_s)
    if order == list(zones.by_name):
        zones.history.clear()
        zones.history.extend(moment for moment in moments if len(moment) == len(order))


def _row(row: Mapping[str, Any]) -> tuple[Hazard, float | None, float, int, PriceState | None]:
    up, retry, prices = row["up_since_s"], row["retry_at_s"], row["prices"]
    state = None
    if prices is not None:
        lists = {name: tuple(map(float, prices[name])) for name in ("day", "residuals")}
        numbers = {name: _finite(prices[name]) for name in ("level", "slow", "deviation", "seen_s")}
        state = PriceState(
            **numbers,
            day=lists["day"],
            days=tuple(map(int, prices["days"])),
            residuals=lists["residuals"],
        )
    return (
        _hazard(row["hazard"]),
        None if up is None else _finite(up),
        -math.inf if retry is None else _finite(retry),
        max(0, int(row["failures"])),
        state,
    )


def _hazard(row: Mapping[str, Any]) -> Hazard:
    deaths, lived_s = ([_finite(value) for value in row[name]] for name in ("deaths", "lived_s"))
    if len(deaths) != AGES or len(lived_s) != AGES or min(*deaths, *lived_s) < 0:
        raise ValueError(f"deaths and lived_s need {AGES} numbers that are not negative")
    return Hazard(deaths, lived_s)


def _finite(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not finite")
    return number
