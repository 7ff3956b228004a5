"""The demand series of the scaling benchmark: public ones where the data folder has them, else
generated.
"""

from __future__ import annotations

import csv
import datetime
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from penstock.bench.harness.options import Options
from penstock.bench.scaling.reactive_rules import Array

GENERATED_FROM_S = 1_700_000_000.0
"""When a series begins that does not say."""
QUICK_STEPS = 400
QUICK_START = 150


@dataclass(frozen=True)
class Source:
    """Where a public series is, the seconds of a step, where its evaluation starts, and how many
    steps are read; 0: all.
    """

    folder: str
    file: str
    step_s: float
    start: int
    steps: int = 0


SOURCES = {
    "elb": Source("nab", "realAWSCloudwatch/elb_request_count_8c0756.csv", 300.0, 7 * 288),
    "amzn": Source("nab", "realTweets/Twitter_volume_AMZN.csv", 300.0, 7 * 288),
    "taxi": Source("nab", "realKnownCause/nyc_taxi.csv", 1800.0, 30 * 48),
    "Azure conv": Source("azure-llm-2023", "conv.csv", 10.0, 90),
    "Azure code": Source("azure-llm-2023", "code.csv", 10.0, 90),
    "AAPL": Source("nab", "realTweets/Twitter_volume_AAPL.csv", 300.0, 7 * 288, 4_500),
    "GOOG": Source("nab", "realTweets/Twitter_volume_GOOG.csv", 300.0, 7 * 288, 4_500),
    "Mooncake": Source("mooncake", "conversation_trace.jsonl", 10.0, 90),
}
UNTOUCHED = ("AAPL", "GOOG", "Mooncake")
"""Series that nothing of the scaler was chosen with."""


@dataclass(frozen=True)
class Series:
    """Work by step.

    Args:
        start_s: when the first step begins, in Unix seconds.
        start: the step at which the evaluation starts.
    """

    name: str
    start_s: float
    step_s: float
    work: Array
    start: int


def load(options: Options) -> tuple[dict[str, str], list[Series]]:
    """Return where each series comes from, and the series."""
    series = [_load(options, name, source) for name, source in SOURCES.items()]
    origins = {name: options.source(source.folder) for name, source in SOURCES.items()}
    if options.quick:
        series = [
            replace(one, work=one.work[:QUICK_STEPS], start=min(one.start, QUICK_START))
            for one in series
        ]
    return origins, series


def _load(options: Options, name: str, source: Source) -> Series:
    if options.data is None or not (options.data / source.folder / source.file).exists():
        return _generated(name, source)
    path = options.data / source.folder / source.file
    match source.folder:
        case "azure-llm-2023":
            start_s, work = _counted(_times_s(path), source.step_s)
        case "mooncake":
            start_s, work = _counted(_offsets_s(path), source.step_s)
        case "nab":
            start_s, work = _values(path)
        case other:
            raise ValueError(f"nobody reads a series of {other}")
    return Series(name, start_s, source.step_s, work[: source.steps or None], source.start)


def _values(path: Path) -> tuple[float, Array]:
    """The first time and all values of a file with a value for each step."""
    with path.open() as file:
        lines = list(csv.reader(file))[1:]
    return _unix_s(lines[0][0]), np.array([float(line[1]) for line in lines])


def _times_s(path: Path) -> Array:
    """When each call came, of a file with a line for each."""
    with path.open() as file:
        return np.array([_unix_s(line[0]) for line in list(csv.reader(file))[1:]])


def _offsets_s(path: Path) -> Array:
    """The same of a file that tells milliseconds since its beginning, whose date is not known."""
    lines = path.read_text().splitlines()
    return GENERATED_FROM_S + np.array([json.loads(line)["timestamp"] / 1e3 for line in lines])


def _counted(at_s: Array, step_s: float) -> tuple[float, Array]:
    """The first time and the calls in each step; the last step is incomplete and left out."""
    steps = ((at_s - at_s[0]) // step_s).astype(np.int64)
    return float(at_s[0]), np.bincount(steps)[: int(steps[-1])].astype(float)


def _unix_s(text: str) -> float:
    return datetime.datetime.fromisoformat(text[:26]).replace(tzinfo=datetime.UTC).timestamp()


def _generated(name: str, source: Source) -> Series:
    """A daily cycle with counting noise and bursts; it only proves that the benchmark runs."""
    rng = np.random.default_rng(len(name))
    steps = np.arange(source.start + 1000)
    day = 1.0 + 0.6 * np.sin(2 * np.pi * steps * source.step_s / 86_400.0)
    mean = 50.0 * day * np.exp(0.2 * rng.standard_normal(len(steps)))
    work = rng.poisson(mean).astype(float)
    return Series(name, GENERATED_FROM_S, source.step_s, work, source.start)
