"""Embeddings of XQuAD's passages and questions on the model that comes with Penstock, with repeats.

There is no provider to ask directly: the model runs behind Penstock, and the arm with everything
off stands for asking it each time.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from penstock.bench.agent_replay.players.arms import DEFAULTS, OFF
from penstock.bench.agent_replay.players.gateway import EMBED_PATH, Gateway
from penstock.bench.agent_replay.players.load_plan import Answered, PlannedRun
from penstock.bench.agent_replay.players.playing import Provider, play_runs
from penstock.bench.harness.options import Options
from penstock.bench.tokens.data import questions
from penstock.service.default_models import ENCODER

WORKLOAD = "w4"
ZIPF = 0.9
SEED = 20260304
PIECE_WORDS = 80
CALLS_PER_S = 20.0
"""By the wall's clock: the model is real, so its times are not divided."""


@dataclass(frozen=True)
class Embedded:
    """What came of the same texts without reuse and with it."""

    off: tuple[Answered, ...]
    defaults: tuple[Answered, ...]

    @property
    def calls_saved(self) -> float:
        """The share of calls that were answered without the model."""
        return sum(bool(each.reused) for each in self.defaults) / len(self.defaults)

    @property
    def wrong(self) -> int:
        """Reused vectors that differ from those that the model computes."""
        computed = {each.run: each.answer for each in self.off}
        return sum(
            each.reused != "" and computed[each.run] != each.answer for each in self.defaults
        )

    @property
    def errors(self) -> int:
        """Calls without an answer."""
        return sum(bool(each.error) for each in (*self.off, *self.defaults))


async def measure(options: Options, provider: Provider, gateway: Gateway, count: int) -> Embedded:
    """Embed so many texts in both arms."""
    planned = runs(texts(options), count)
    off, defaults = [
        await play_runs(provider, gateway.target(arm, WORKLOAD, EMBED_PATH), planned)
        for arm in (OFF, DEFAULTS)
    ]
    return Embedded(off, defaults)


def texts(options: Options) -> list[str]:
    """Pieces of passages, and questions, in an order without meaning."""
    found = list(questions(options))
    passages = dict.fromkeys(each.passage for each in found)
    every = [*chain.from_iterable(map(pieces, passages)), *(each.question for each in found)]
    random.Random(SEED).shuffle(every)
    return every


def pieces(passage: str) -> list[str]:
    """A passage in pieces that the model takes, as an index of documents has them."""
    words = passage.split()
    starts = range(0, len(words), PIECE_WORDS)
    return [" ".join(words[start : start + PIECE_WORDS]) for start in starts]


def runs(of: Sequence[str], count: int) -> list[PlannedRun]:
    """So many calls of one text each, drawn by Zipf, which arrive at random."""
    rng = random.Random(SEED)
    weights = [1 / (rank + 1) ** ZIPF for rank in range(len(of))]
    due_s, planned = 0.0, []
    for number, text in enumerate(rng.choices(of, weights, k=count)):
        body = {"model": ENCODER, "input": [text]}
        planned.append(PlannedRun(f"embed-{number}", due_s, (body,)))
        due_s += rng.expovariate(CALLS_PER_S)
    return planned
