"""A simulated spot market: zones whose room comes and goes together, and traces of real preemptions
in the same shape.

Room of a zone is there while a latent value is below the zone's level. The latent value is a sum of
a global, a regional and a zonal part, each a sum of slow and fast mean-reverting courses: lives are
heavy-tailed, and one that has lasted is likelier to last. The shares of the parts are found so that
the room itself correlates as published: 0.43 within and 0.14 across regions.
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
REGIONS = {"r1": (0.91, 0.62, 0.48), "r2": (0.85, 0.70, 0.33), "r3": (0.75, 0.55, 0.17)}
"""Share of time that each zone has room, from 0.17 to 0.91 as in the published traces."""
COURSES_S = ((3_000.0, 0.12), (21_600.0, 0.33), (259_200.0, 0.55))
"""Times of return to the mean, and their shares of the variance."""
PLENTY = 99
SPOT_PRICE = 0.3

Room = NDArray[np.int64]


@dataclass(frozen=True)
class Market:
    """Room by tick and zone, prices by tick and zone (shares of on demand), and where each zone
    lies.
    """

    zones: dict[str, str]
    room: Room
    prices: NDArray[np.float64]


def generate(seed: int, days: float = DAYS) -> Market:
    """A market of nine zones in three regions."""
    rng = np.random.default_rng(seed)
    ticks = round(days * 86_400 / TICK_S)
    zones = {f"{region}{letter}": region for region in REGIONS for letter in "abc"}
    parts = {name: _course(ticks, rng) for name in ("all", *REGIONS, *zones)}
    levels = [level for region in REGIONS.values() for level in region]
    room = _fitted(parts, zones, levels)
    noise = np.stack([_course(ticks, rng) for _ in zones], axis=1)
    return Market(zones, room * PLENTY, SPOT_PRICE * np.exp(0.1 * noise - 0.005))


def correlations(market: Market) -> tuple[float, float]:
    """Mean correlation of room within and across regions."""
    found = np.corrcoef((market.room > 0).T.astype(float))
    regions = np.array(list(market.zones.values()))
    same = regions[:, None] == regions[None, :]
    off = ~np.eye(len(regions), dtype=bool)
    return float(found[same & off].mean()), float(found[~same].mean()) if (~same).any() else 0.0


def _course(ticks: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A stationary course of variance one."""
    total = np.zeros(ticks)
    for back_s, share in COURSES_S:
        keep = np.exp(-TICK_S / back_s)
        steps = rng.standard_normal(ticks) * np.sqrt(share * (1 - keep**2))
        value = rng.standard_normal() * np.sqrt(share)
        for tick in range(ticks):
            value = keep * value + steps[tick]
            total[tick] += value
    return total


def _fitted(
    parts: dict[str, NDArray[np.float64]], zones: dict[str, str], levels: list[float]
) -> Room:
    """Room with the published correlations, found by turning the shares of the global and the
    regional part.
    """
    share_all, share_region = ACROSS, WITHIN - ACROSS
    room = np.zeros((len(parts["all"]), len(zones)), dtype=np.int64)
    for _ in range(12):
        own = max(0.05, 1.0 - share_all - share_region)
        for place, (name, region) in enumerate(zones.items()):
            latent = (
                np.sqrt(share_all) * parts["all"]
                + np.sqrt(share_region) * parts[region]
                + np.sqrt(own) * parts[name]
            )
            room[:, place] = latent < np.quantile(latent, levels[place])
        within, across = correlations(Market(zones, room, np.zeros(0)))
        share_all = float(np.clip(share_all + 0.7 * (ACROSS - across), 0.01, 0.6))
        share_region = float(
            np.clip(
                share_region + 0.7 * (WITHIN - ACROSS - within + across), 0.01, 0.85 - share_all
            )
        )
    return room


def bamboo(folder: Path, need: int) -> Market | None:
    """The published preemption traces as three zones, each scaled to room for `need`; None where
    they are not there.
    """
    files = [
        folder / name for name in ("p3-trace.csv", "g4dn-trace.csv", "gcloud-v100x1-east1c.txt")
    ]
    if not all(file.exists() for file in files):
        return None
    counts = [_events(files[0]), _events(files[1]), _minutes(files[2])]
    ticks = min(len(count) for count in counts)
    room = np.stack(
        [np.round(need * count[:ticks] / count.max()).astype(np.int64) for count in counts], axis=1
    )
    zones = {"p3": "aws-1", "g4dn": "aws-2", "gcloud": "gcp"}
    return Market(zones, room, np.full(room.shape, SPOT_PRICE))


def _events(file: Path) -> NDArray[np.float64]:
    """Nodes there by tick, from `ms,add|remove,node`."""
    with file.open() as lines:
        rows = [
            (float(row[0]) / 1e3, 1 if row[1] == "add" else -1)
            for row in csv.reader(lines)
            if len(row) >= 3
        ]
    at, change = np.array(rows).T
    moments = np.arange(0.0, at.max(), TICK_S)
    total = np.cumsum(change)
    found: NDArray[np.float64] = total[
        np.maximum(0, np.searchsorted(at, moments, side="right") - 1)
    ]
    return found


def _minutes(file: Path) -> NDArray[np.float64]:
    """Nodes there by tick, from `date, time, count`."""
    with file.open() as lines:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if len(row) >= 3]
    at = np.array(
        [datetime.datetime.fromisoformat(f"{row[0]}T{row[1]}").timestamp() for row in rows]
    )
    moments = np.arange(at[0], at[-1], TICK_S)
    counts = np.array([float(row[2]) for row in rows])
    found: NDArray[np.float64] = counts[np.searchsorted(at, moments, side="right") - 1]
    return found
