"""Lossy selection: how many answers stay in what is kept of a long tool result."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from penstock.bench.harness.options import Options
from penstock.bench.tokens.data import SEED, questions
from penstock.bench.tokens.sizes import Change, total
from penstock.prompts.conversation import Conversation, Policy, Turn, estimate_tokens
from penstock.prompts.optimiser import Optimiser

KEEP_SHARE = 0.45
"""Share of a block's tokens that lossy selection keeps; chosen beforehand."""
OTHER_PASSAGES = 4


class Passage(NamedTuple):
    """What lossy selection did to the questions of one passage."""

    questions: int = 0
    kept: int = 0
    tokens: Change = Change(0, 0)


def questions_by_passage(options: Options) -> list[Passage]:
    """Each question meets its own passage among four others."""
    optimiser = Optimiser(Policy(keep_share=KEEP_SHARE))
    rng = random.Random(SEED)
    samples = list(questions(options))
    passages = sorted({sample.passage for sample in samples})
    if options.quick and len(samples) > 60:
        samples = rng.sample(samples, 60)
    found: dict[str, Passage] = {}
    for passage, question, answer in samples:
        others = [other for other in passages if other != passage]
        mixed = [passage, *rng.sample(others, OTHER_PASSAGES)]
        rng.shuffle(mixed)
        text = "\n\n".join(mixed)
        turns = (Turn("user", question), Turn("tool", text, "c1"))
        shaped = optimiser.optimise(Conversation(turns)).conversation.turns[1].content
        had = found.get(passage, Passage())
        tokens = had.tokens.plus(Change(estimate_tokens(text), estimate_tokens(shaped)))
        found[passage] = Passage(had.questions + 1, had.kept + (answer in shaped), tokens)
    return list(found.values())


def lossy_figures(passages: Sequence[Passage]) -> dict[str, float]:
    """Answers kept and tokens saved over these passages."""
    asked = sum(passage.questions for passage in passages)
    return {
        "answer_kept": sum(passage.kept for passage in passages) / asked,
        "token_cut_lossy": total(passage.tokens for passage in passages).cut,
    }
