"""What the batching benchmarks send: Banking77 as it comes, and texts as long as the prompts of the
Azure conversation trace.
"""

from __future__ import annotations

import csv
import random
import statistics

from penstock.bench.harness.options import Options
from penstock.models.samples import SAMPLE_TEXTS
from penstock.simulation.batch_queue import Lengths, length

LONGEST = 256
"""Tokens that the model takes at most."""
MEDIAN = 24


def sample_texts(options: Options) -> list[str]:
    """Banking77's test texts; without the data, the samples of the repository."""
    if options.data is None or options.source("banking77") == "generated":
        return list(SAMPLE_TEXTS)
    with (options.data / "banking77" / "test.csv").open(newline="", encoding="utf-8") as file:
        return [row["text"] for row in csv.DictReader(file)]


def trace_lengths(options: Options) -> Lengths:
    """Lengths of the conversation trace's prompts, scaled to a median of 24 tokens, at most the
    model's longest input; or lognormal.
    """
    if options.data is None or options.source("azure-llm-2023") == "generated":
        return length
    with (options.data / "azure-llm-2023" / "conv.csv").open(newline="") as file:
        sizes = [int(row["ContextTokens"]) for row in csv.DictReader(file)]
    scale = MEDIAN / statistics.median(sizes)
    scaled = [max(1, min(LONGEST, round(size * scale))) for size in sizes]
    return lambda rng: rng.choice(scaled)


def mixed_texts(options: Options, count: int, rng: random.Random) -> list[str]:
    """Texts made of Banking77's words, about as many words as the trace's prompts have tokens."""
    words = [word for text in sample_texts(options) for word in text.split()]
    lengths = trace_lengths(options)
    texts = []
    for number in range(count):
        start = rng.randrange(len(words))
        size = min(LONGEST, lengths(rng)) * 3 // 4 or 1
        texts.append(
            f"{number} " + " ".join(words[(start + step) % len(words)] for step in range(size))
        )
    return texts
