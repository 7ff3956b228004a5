"""A simulated spot market, and traces of real preemptions in the same form.

A zone has capacity while a latent value is below the zone's level. The latent value is a sum of a
global, a regional and a zonal part. Each part is a sum of slow and fast mean-reverting processes,
so that the lives of machines are heavy-tailed: one that has lasted is likelier to last. The shares
of the parts are fitted so that the capacity of zones correlates as in published traces: 0.43 within
a region and 0.14 across regions.
"""

from __future__ import annotations

import csv
import datetime
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TICK_S = 195.0
DAYS = 45.5
WITHIN, ACROSS = 0.43, 0.14
"""Correlation of capacity within a region and across regions."""
REGIONS = {"r1": (0.91, 0.62, 0.48), "r2": (0.85, 0.70, 0.33), "r3": (0.75, 0.55, 0.17)}
"""Share of time that each zone has capacity, from 0.17 to 0.91 as in the published traces."""
PROCESSES = ((3_000.0, 0.12), (21_600.0, 0.33), (259_200.0, 0.55))
"""Mean-reverting processes of a part: time constant in seconds, and share of the variance."""
FIT_STEPS = 12
FIT_RATE = 0.7
MAX_MACHINES = 99
"""Capacity of a zone while it has any."""
SPOT_PRICE = 0.3
"""Mean spot price, as a share of the on-demand price."""
PRICE_SPREAD = 0.1
"""Standard deviation of the logarithm of prices."""
PRICE_SHIFT = 0.005
"""Keeps the mean of the prices: half the variance of their logarithm."""
TRACES = ("p3-trace.csv", "g4dn-trace.csv", "gcloud-v100x1-east1c.txt")

Capacity = NDArray[np.int64]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Market:
    """A spot market.

    Args:
        zones: the region of each zone.
        capacity: machines that a zone can run, ticks x zones.
        prices: as shares of the on-demand price, ticks x zones.
    """

    zones: dict[str, str]
    capacity: Capacity
    prices: Array


def generate_market(seed: int, days: float = DAYS) -> Market:
    """Return a market of nine zones in three regions."""
    rng = np.random.default_rng(seed)
    ticks = round(days * 86_400 / TICK_S)
    zones = {f"{region}{letter}": region for region in REGIONS for letter in "abc"}
    parts = {name: _latent_part(ticks, rng) for name in ("all", *REGIONS, *zones)}
    levels = [level for region in REGIONS.values() for level in region]
    has_capacity = _fitted_capacity(parts, zones, levels)
    noise = np.stack([_latent_part(ticks, rng) for _ in zones], axis=1)
    prices = SPOT_PRICE * np.exp(PRICE_SPREAD * noise - PRICE_SHIFT)
    return Market(zones, has_capacity * MAX_MACHINES, prices)


def correlations(market: Market) -> tuple[float, float]:
    """Return the mean correlation of capacity within regions and across regions."""
    found = np.corrcoef((market.capacity > 0).T.astype(float))
    regions = np.array(list(market.zones.values()))
    same_region = regions[:, None] == regions[None, :]
    different_zone = ~np.eye(len(regions), dtype=bool)
    within = float(found[same_region & different_zone].mean())
    across = float(found[~same_region].mean()) if (~same_region).any() else 0.0
    return within, across


def _latent_part(ticks: int, rng: np.random.Generator) -> Array:
    """A stationary series of variance one."""
    total = np.zeros(ticks)
    for time_constant_s, share in PROCESSES:
        decay = np.exp(-TICK_S / time_constant_s)
        steps = rng.standard_normal(ticks) * np.sqrt(share * (1 - decay**2))
        value = rng.standard_normal() * np.sqrt(share)
        for tick in range(ticks):
            value = decay * value + steps[tick]
            total[tick] += value
    return total


def _fitted_capacity(
    parts: dict[str, Array], zones: dict[str, str], levels: list[float]
) -> Capacity:
    """Capacity, 0 or 1, with the published correlations.

    The shares of the global and the regional part are adjusted until they are met.
    """
    global_share, region_share = ACROSS, WITHIN - ACROSS
    capacity = np.zeros((len(parts["all"]), len(zones)), dtype=np.int64)
    for _ in range(FIT_STEPS):
        zone_share = max(0.05, 1.0 - global_share - region_share)
        for index, (name, region) in enumerate(zones.items()):
            latent = (
                np.sqrt(global_share) * parts["all"]
                + np.sqrt(region_share) * parts[region]
                + np.sqrt(zone_share) * parts[name]
            )
            capacity[:, index] = latent < np.quantile(latent, levels[index])
        within, across = correlations(Market(zones, capacity, np.zeros(0)))
        global_share += FIT_RATE * (ACROSS - across)
        global_share = float(np.clip(global_share, 0.01, 0.6))
        region_share += FIT_RATE * (WITHIN - ACROSS - within + across)
        region_share = float(np.clip(region_share, 0.01, 0.85 - global_share))
    return capacity


def bamboo_market(folder: Path, need: int) -> Market | None:
    """Return the preemption traces published with Bamboo (NSDI 2023) as a market of three zones.

    Args:
        need: machines that each zone can run at its best moment.

    Returns:
        None where the folder does not hold the traces.
    """
    files = [folder / name for name in TRACES]
    if not all(file.exists() for file in files):
        return None
    counts = [_from_events(files[0]), _from_events(files[1]), _from_minutes(files[2])]
    ticks = min(len(count) for count in counts)
    capacity = np.stack(
        [np.round(need * count[:ticks] / count.max()).astype(np.int64) for count in counts], axis=1
    )
    zones = {"p3": "aws-1", "g4dn": "aws-2", "gcloud": "gcp"}
    return Market(zones, capacity, np.full(capacity.shape, SPOT_PRICE))


def _from_events(file: Path) -> Array:
    """Nodes by tick, from lines of `ms,add|remove,node`."""
    with file.open() as lines:
        rows = [
            (float(row[0]) / 1e3, 1 if row[1] == "add" else -1)
            for row in csv.reader(lines)
            if len(row) >= 3
        ]
    at_s, change = np.array(rows).T
    ticks_s = np.arange(0.0, at_s.max(), TICK_S)
    last_event = np.maximum(0, np.searchsorted(at_s, ticks_s, side="right") - 1)
    nodes: Array = np.cumsum(change)[last_event]
    return nodes


def _from_minutes(file: Path) -> Array:
    """Nodes by tick, from lines of `date, time, count`."""
    with file.open() as lines:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if len(row) >= 3]
    at_s = np.array(
        [datetime.datetime.fromisoformat(f"{row[0]}T{row[1]}").timestamp() for row in rows]
    )
    ticks_s = np.arange(at_s[0], at_s[-1], TICK_S)
    counts = np.array([float(row[2]) for row in rows])
    nodes: Array = counts[np.searchsorted(at_s, ticks_s, side="right") - 1]
    return nodes
