"""Sets of tools with what the shipped encoder and BM25 say of each tool, and what pruning keeps of
them. Everything but the sets is the shipped code; what it computes of one text is computed once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from penstock.bench.tool_pruning.data import Request, tool_set
from penstock.prompts.conversation import ToolSpec
from penstock.prompts.selection import Bm25Index, Embedder
from penstock.prompts.tool_pruning import Asked, Pruned, PruningPolicy, prune
from penstock.prompts.tool_ranking import features, probabilities, text_to_embed, word_counts

SIZES = (30, 60, 120)
"""Tools of a set."""
Count = Callable[[str], int]
Floats = NDArray[np.float64]


class RankedSet(NamedTuple):
    """A set of tools as one request ranks it.

    Attributes:
        request: the request.
        tools: the set.
        tokens: of each tool.
        features: the two scores of each tool that the logit weighs.
        probable: the probability of each tool.
    """

    request: Request
    tools: tuple[ToolSpec, ...]
    tokens: tuple[int, ...]
    features: tuple[tuple[float, float], ...]
    probable: tuple[float, ...]

    @property
    def needed(self) -> int:
        """The place of the tool that the request needs."""
        return next(
            place for place, tool in enumerate(self.tools) if tool.name == self.request.needed
        )


class Kept(NamedTuple):
    """What was kept of a set.

    Attributes:
        group: of the request.
        request: its text.
        size: of the set.
        cut: share of the schemas' tokens left out.
        right: whether the needed tool was kept.
        tools: number kept.
    """

    group: str
    request: str
    size: int
    cut: float
    right: bool
    tools: int


class Ranker:
    """Ranks tools with the encoder; remembers what it computed of each text and tool."""

    def __init__(self, embed: Embedder, count: Count) -> None:
        self._embed, self._count = embed, count
        self._vectors: dict[str, Floats] = {}
        self._tools: dict[ToolSpec, tuple[Floats, Counter[str], int]] = {}

    def ranked(self, request: Request, tools: tuple[ToolSpec, ...]) -> RankedSet:
        """The set as the request ranks it."""
        vectors, counts, tokens = zip(*map(self._known, tools), strict=True)
        near = (np.stack(vectors) @ self._vector(request.text)).tolist()
        word_scores = Bm25Index(counts).scores(request.text)
        return RankedSet(
            request,
            tools,
            tokens,
            tuple(features(near, word_scores)),
            tuple(probabilities(near, word_scores)),
        )

    def _known(self, tool: ToolSpec) -> tuple[Floats, Counter[str], int]:
        if tool not in self._tools:
            texts = (tool.name, tool.description, tool.parameters)
            tokens = sum(map(self._count, texts))
            self._tools[tool] = self._vector(text_to_embed(tool)), word_counts(tool), tokens
        return self._tools[tool]

    def _vector(self, text: str) -> Floats:
        """The embedding of a text, of length 1."""
        if text not in self._vectors:
            vector = np.asarray(self._embed([text])[0])
            self._vectors[text] = vector / np.linalg.norm(vector)
        return self._vectors[text]


def ranked_sets(
    requests: Sequence[Request], pool: Sequence[Request], draws: int, ranker: Ranker
) -> Iterator[RankedSet]:
    """Each request with `draws` sets of each size, made of functions of the pool's requests."""
    for number, request in enumerate(requests):
        others = [other for other in pool if other.group != request.group]
        for size in SIZES:
            for draw in range(draws):
                yield ranker.ranked(request, tool_set(request, others, size, (number, draw)))


def size_of(ranked: RankedSet) -> int:
    """The size for which the set was made: a request may bring more functions of its own."""
    return max((size for size in SIZES if size <= len(ranked.tools)), default=len(ranked.tools))


def keep_by_probability(ranked: RankedSet, omitted_share: float) -> Kept:
    """What pruning keeps."""
    policy = PruningPolicy(omitted_share)
    asked = [Asked(ranked.request.text)]
    pruned = prune(ranked.tools, asked, (), lambda _: ranked.probable, policy)
    if not isinstance(pruned, Pruned):
        return _kept(ranked, set(range(len(ranked.tools))))
    names = {tool.name for tool in pruned.kept}
    return _kept(ranked, {at for at, tool in enumerate(ranked.tools) if tool.name in names})


def keep_by_number(ranked: RankedSet, number: int) -> Kept:
    """What is kept where it is always the same number of the most probable tools."""
    places = sorted(range(len(ranked.tools)), key=lambda place: -ranked.probable[place])
    return _kept(ranked, set(places[:number]))


def _kept(ranked: RankedSet, places: set[int]) -> Kept:
    cut = 1 - sum(ranked.tokens[place] for place in places) / sum(ranked.tokens)
    right = ranked.needed in places
    return Kept(ranked.request.group, ranked.request.text, size_of(ranked), cut, right, len(places))
