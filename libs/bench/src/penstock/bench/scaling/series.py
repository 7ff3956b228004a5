"""The demand series of the scaling benchmark: public ones where the data folder has them, else
generated.
"""

from __future__ import annotations

import csv
import datetime
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from penstock.bench.harness.options import Options
from penstock.bench.scaling.reactive_rules import Array

QUICK_STEPS = 700
FILES = {
    "elb": ("nab", "realAWSCloudwatch/elb_request_count_8c0756.csv", 300.0, 7 * 288),
    "amzn": ("nab", "realTweets/Twitter_volume_AMZN.csv", 300.0, 7 * 288),
    "taxi": ("nab", "realKnownCause/nyc_taxi.csv", 1800.0, 30 * 48),
    "Azure conv": ("azure-llm-2023", "conv.csv", 10.0, 90),
    "Azure code": ("azure-llm-2023", "code.csv", 10.0, 90),
}


@dataclass(frozen=True)
class Series:
    """Work by step; the evaluation begins at step `start`."""

    name: str
    began_s: float
    step_s: float
    work: Array
    start: int


def load(options: Options) -> tuple[dict[str, str], list[Series]]:
    """Where each series comes from, and the series."""
    made = [_one(options, name) for name in FILES]
    sources = {name: options.source(folder) for name, (folder, *_) in FILES.items()}
    if options.quick:
        made = [
            Series(one.name, one.began_s, one.step_s, one.work[:QUICK_STEPS], min(one.start, 200))
            for one in made
        ]
    return sources, made


def _one(options: Options, name: str) -> Series:
    folder, file, step_s, start = FILES[name]
    if options.data is None or not (options.data / folder / file).exists():
        return _generated(name, step_s, start)
    path = options.data / folder / file
    began_s, work = _counts(path, step_s) if folder.startswith("azure") else _values(path)
    return Series(name, began_s, step_s, work, start)


def _values(path: Path) -> tuple[float, Array]:
    with path.open() as file:
        lines = list(csv.reader(file))[1:]
    return _unix_s(lines[0][0]), np.array([float(line[1]) for line in lines])


def _counts(path: Path, step_s: float) -> tuple[float, Array]:
    """Calls in each step; the last, broken step is left out."""
    with path.open() as file:
        at = np.array([_unix_s(line[0]) for line in list(csv.reader(file))[1:]])
    steps = ((at - at[0]) // step_s).astype(np.int64)
    return float(at[0]), np.bincount(steps)[: int(steps[-1])].astype(float)


def _unix_s(text: str) -> float:
    return datetime.datetime.fromisoformat(text[:26]).replace(tzinfo=datetime.UTC).timestamp()


def _generated(name: str, step_s: float, start: int) -> Series:
    """A day's course with counting noise and bursts; it only proves that the benchmark runs."""
    rng = np.random.default_rng(len(name))
    steps = np.arange(start + 1000)
    day = 1.0 + 0.6 * np.sin(2 * np.pi * steps * step_s / 86_400.0)
    mean = 50.0 * day * np.exp(0.2 * rng.standard_normal(len(steps)))
    return Series(name, 1_700_000_000.0, step_s, rng.poisson(mean).astype(float), start)
