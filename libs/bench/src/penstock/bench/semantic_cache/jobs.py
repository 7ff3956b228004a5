"""Which streams are run: corpora, bounds, shuffles, repeated traffic, and judges that err."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from penstock.bench.harness.data_sets import BANKING77, CLINC150
from penstock.bench.semantic_cache.data import Corpus
from penstock.bench.semantic_cache.stream import Job

LOOSE, STRICT = 0.03, 0.01
"""The two error bounds."""
SEEDS = (20, 21, 22, 23, 24, 25)
SEEDS_OF = {BANKING77: SEEDS, CLINC150: tuple(range(20, 30))}
"""CLINC150 is shuffled ten times: at 0.03 the cut of one shuffle has a standard deviation of 0.016,
against 0.006 on Banking77.
"""
CHOSEN_ON, HELD_OUT = "banking77, intents chosen on", "banking77, intents held out"
"""Halves of Banking77's intents: the calibration's prior was fitted on the first."""
HALF_SEEDS = SEEDS[:3]
ZIPF = 0.9
JUDGE_ERRORS = (0.01, 0.02, 0.05, 0.10, 0.20)
"""Shares of wrong labels, beside none."""
VARIANT_SEEDS = {BANKING77: SEEDS[:2], CLINC150: SEEDS[:1]}


def plain_jobs(*, quick: bool) -> list[Job]:
    """Each corpus at each bound; in a quick run one shuffle."""
    return [
        Job(name, bound, seed)
        for name, seeds in SEEDS_OF.items()
        for bound in (LOOSE, STRICT)
        for seed in (seeds[:1] if quick else seeds)
    ]


def half_jobs() -> list[Job]:
    """Both halves of Banking77's intents at each bound."""
    return [
        Job(name, bound, seed)
        for name in (CHOSEN_ON, HELD_OUT)
        for bound in (LOOSE, STRICT)
        for seed in HALF_SEEDS
    ]


def variant_jobs() -> list[Job]:
    """Repeated traffic at each bound, and judges that err."""
    zipf = [
        Job(name, bound, seed, zipf=ZIPF)
        for name, seeds in VARIANT_SEEDS.items()
        for bound in (LOOSE, STRICT)
        for seed in seeds
    ]
    judged = [
        Job(name, LOOSE, seed, judge_errors=errors)
        for errors in JUDGE_ERRORS
        for name, seeds in VARIANT_SEEDS.items()
        for seed in seeds
    ]
    return zipf + judged


def with_halves(corpora: Mapping[str, Corpus]) -> dict[str, Corpus]:
    """The corpora, and the two halves of Banking77's intents."""
    banking = corpora[BANKING77]
    halves = {
        CHOSEN_ON: _of_intents(banking, held_out=False),
        HELD_OUT: _of_intents(banking, held_out=True),
    }
    return {**corpora, **halves}


def _of_intents(corpus: Corpus, *, held_out: bool) -> Corpus:
    places = [
        place for place, answer in enumerate(corpus.answers) if is_held_out(answer) == held_out
    ]
    return Corpus(
        [corpus.texts[place] for place in places],
        [corpus.answers[place] for place in places],
        corpus.vectors[places],
    )


def is_held_out(intent: str) -> bool:
    """Whether an intent belongs to the half on which the calibration's prior was not fitted."""
    return zlib.crc32(intent.encode()) % 2 == 1
