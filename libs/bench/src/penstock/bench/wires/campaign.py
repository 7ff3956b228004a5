"""Damaged streams by the thousand. Each run adds a line to a log, which the figures sum up."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from penstock.bench.harness import json_lines
from penstock.bench.reading.sources.tree import repository
from penstock.bench.wires.generated import random_answer, recorded
from penstock.bench.wires.mutations import mutated
from penstock.bench.wires.playing import Played, play
from penstock.testkit.recordings import DEFAULT_PROVIDERS

LOG_VARIABLE = "PENSTOCK_WIRES_LOG"
"""Names the log's path, in place of the one beside the page."""
COLUMNS = ("damage", "streams", "failed with a reason", "delivered and not kept", "harmless")
SUMMED = ("mutated_streams", "mutated_internal", "mutated_kept")


def log_path() -> Path:
    """Where the log is."""
    named = os.environ.get(LOG_VARIABLE)
    return Path(named) if named else repository() / "docs/benchmarks/wires-mutations.jsonl"


@dataclass
class Campaign:
    """What one run found, and the sums over the log."""

    seed: int
    streams: int = 0
    internal: int = 0
    kept: int = 0
    failures: list[str] = field(default_factory=list)
    by_kind: Counter[tuple[str, str]] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, damaged: Played, right: Played) -> None:
        """Count a damaged stream. An answer that is kept must be the right one."""
        self.streams += 1
        is_right = damaged.result is not None and damaged.result.generate == _answer(right)
        self.internal += damaged.is_internal
        is_wrong = damaged.is_kept and not is_right
        self.kept += is_wrong
        if damaged.is_internal or is_wrong:
            self.failures.append(
                f"seed {self.seed}, stream {self.streams}: {kind}, {damaged.fault}"
            )
        self.by_kind[kind, _came(damaged, is_right=is_right)] += 1

    def figures(self) -> dict[str, int]:
        """The counts of this run and of those in the log."""
        own = dict(zip(SUMMED, (self.streams, self.internal, self.kept), strict=True))
        return {name: own[name] + self.before[name] for name in SUMMED}

    def rows(self) -> tuple[tuple[str | int, ...], ...]:
        """The rows of the table."""
        kinds = sorted({kind for kind, _ in self.by_kind})
        ends = ("reason", "delivered", "harmless")
        counts = {kind: [self.by_kind[kind, end] for end in ends] for kind in kinds}
        return tuple((kind, sum(counts[kind]), *counts[kind]) for kind in kinds)


def _answer(played: Played) -> object:
    return None if played.result is None else played.result.generate


def _came(damaged: Played, *, is_right: bool) -> str:
    if damaged.fault is not None:
        return "reason"
    return "harmless" if is_right else "delivered"


def run(count: int, *, log: bool) -> Campaign:
    """Damage so many streams, and add a line to the log."""
    lines = json_lines.rows(log_path())
    campaign = Campaign(seed=len(lines))
    for line in lines:
        campaign.before.update({name: line[name] for name in SUMMED})
    rng = Random(f"wires:{campaign.seed}")
    wires = list(DEFAULT_PROVIDERS)
    while campaign.streams < count:
        stream = recorded(rng.choice(wires), random_answer(rng), is_stream=True)
        damaged = mutated(stream.body, rng)
        if damaged is not None:
            kind, body = damaged
            campaign.add(kind, play(stream, [body]), play(stream, [stream.body]))
    if log:
        _add_to_log(campaign)
    return campaign


def _add_to_log(campaign: Campaign) -> None:
    counts = (campaign.streams, campaign.internal, campaign.kept)
    line = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seed": campaign.seed,
        **dict(zip(SUMMED, counts, strict=True)),
    }
    json_lines.append(log_path(), line)
