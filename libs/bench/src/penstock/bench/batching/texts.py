"""The texts of the batching benchmarks: Banking77's, or as long as the Azure trace's prompts."""

from __future__ import annotations

import random
import statistics

from penstock.bench.harness.data_sets import azure_trace, banking77
from penstock.bench.harness.options import Options
from penstock.models.samples import SAMPLE_TEXTS
from penstock.simulation.batch_queue import Lengths, log_normal_length

MAX_MODEL_TOKENS = 256
MEDIAN_TOKENS = 24


def sample_texts(options: Options) -> list[str]:
    """Banking77's test texts; without the data, the samples of the repository."""
    rows = banking77(options, "test")
    return list(SAMPLE_TEXTS) if rows is None else [row.text for row in rows]


def trace_lengths(options: Options) -> Lengths:
    """Lengths of the conversation trace's prompts, or log-normal ones.

    They are scaled to a median of 24 tokens and cut at the model's longest input.
    """
    rows = azure_trace(options)
    if rows is None:
        return log_normal_length
    scale = MEDIAN_TOKENS / statistics.median(row.input_tokens for row in rows)
    lengths = [max(1, min(MAX_MODEL_TOKENS, round(row.input_tokens * scale))) for row in rows]
    return lambda rng: rng.choice(lengths)


def mixed_texts(options: Options, count: int, rng: random.Random) -> list[str]:
    """Texts of Banking77's words; three words for four tokens of the trace's prompts."""
    words = [word for text in sample_texts(options) for word in text.split()]
    lengths = trace_lengths(options)
    texts = []
    for number in range(count):
        start = rng.randrange(len(words))
        size = min(MAX_MODEL_TOKENS, lengths(rng)) * 3 // 4 or 1
        chosen = (words[(start + offset) % len(words)] for offset in range(size))
        texts.append(f"{number} " + " ".join(chosen))
    return texts
