"""What is learned about offerings, as JSON and back: lives, back-off, prices. No I/O here.

The keys are those that earlier versions wrote; `zones` holds the offerings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, SupportsFloat

from penstock.scaler.spot.hazard import AGES, Hazard
from penstock.scaler.spot.offerings import Offering, Offerings
from penstock.scaler.spot.price_forecast import PriceState

MAX_MOMENTS = 500
"""Newest moments of availability that are kept; the solver draws its scenarios from them."""


@dataclass(frozen=True)
class _Row:
    """What is kept of one offering."""

    hazard: Hazard
    up_since_s: float | None
    retry_at_s: float
    failures: int
    prices: PriceState | None


def dump_offerings(offerings: Offerings) -> str:
    """Return what is learned as JSON."""
    moments = list(offerings.availability)[-MAX_MOMENTS:]
    return json.dumps(
        {
            "zones": {name: _dumped(one) for name, one in offerings.by_name.items()},
            "pooled": asdict(offerings.pooled_hazard),
            "order": list(offerings.by_name),
            "history": ["".join("01"[is_up] for is_up in moment) for moment in moments],
        }
    )


def load_offerings(text: str, offerings: Offerings, now_s: float) -> None:
    """Restore what was dumped. Offerings that are configured no more are left out.

    Raises:
        ValueError: the text is not what `dump_offerings` returns; nothing has been changed.
    """
    try:
        kept = json.loads(text)
        pooled = _hazard(kept["pooled"])
        names = [name for name in kept["zones"] if name in offerings.by_name]
        rows = {name: _row(kept["zones"][name]) for name in names}
        order = [str(name) for name in kept["order"]]
        moments = [tuple(mark == "1" for mark in line) for line in kept["history"]]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"the stored state of spot offerings cannot be read: {error}") from None
    offerings.pooled_hazard = pooled
    for name, row in rows.items():
        _restore(offerings, name, row, now_s)
    if order == list(offerings.by_name):
        offerings.availability.clear()
        offerings.availability.extend(moment for moment in moments if len(moment) == len(order))


def _dumped(offering: Offering) -> dict[str, object]:
    prices = offering.price_forecast.state
    return {
        "hazard": asdict(offering.hazard),
        "up_since_s": offering.up_since_s,
        "retry_at_s": offering.retry_at_s if math.isfinite(offering.retry_at_s) else None,
        "failures": offering.failures,
        "prices": asdict(prices) if math.isfinite(prices.seen_s) else None,
    }


def _restore(offerings: Offerings, name: str, row: _Row, now_s: float) -> None:
    offering = offerings.by_name[name]
    offering.hazard = row.hazard
    offering.up_since_s = row.up_since_s
    offering.retry_at_s = row.retry_at_s
    offering.failures = row.failures
    if row.prices is not None:
        offering.price_forecast.state = row.prices
        offerings.update_price(name, now_s)


def _row(row: Mapping[str, Any]) -> _Row:
    up_since_s, retry_at_s, prices = row["up_since_s"], row["retry_at_s"], row["prices"]
    return _Row(
        hazard=_hazard(row["hazard"]),
        up_since_s=None if up_since_s is None else _finite(up_since_s),
        retry_at_s=-math.inf if retry_at_s is None else _finite(retry_at_s),
        failures=max(0, int(row["failures"])),
        prices=None if prices is None else _price_state(prices),
    )


def _price_state(row: Mapping[str, Any]) -> PriceState:
    return PriceState(
        level=_finite(row["level"]),
        slow=_finite(row["slow"]),
        deviation=_finite(row["deviation"]),
        seen_s=_finite(row["seen_s"]),
        day=tuple(map(float, row["day"])),
        days=tuple(map(int, row["days"])),
        residuals=tuple(map(float, row["residuals"])),
    )


def _hazard(row: Mapping[str, Any]) -> Hazard:
    deaths = [_finite(value) for value in row["deaths"]]
    lived_s = [_finite(value) for value in row["lived_s"]]
    if len(deaths) != AGES or len(lived_s) != AGES or min(*deaths, *lived_s) < 0:
        raise ValueError(f"deaths and lived_s need {AGES} numbers that are not negative")
    return Hazard(deaths, lived_s)


def _finite(value: SupportsFloat) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not finite")
    return number
