"""Sets of tools with what the shipped encoder and BM25 say of each tool, and what pruning keeps of
them. Everything but the sets is the shipped code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from penstock.bench.tool_pruning.data import Request, tool_set
from penstock.prompts.conversation import ToolSpec
from penstock.prompts.selection import Similarity
from penstock.prompts.tool_pruning import Asked, Pruned, PruningPolicy, prune
from penstock.prompts.tool_ranking import features, index_of, probabilities, text_to_embed

SIZES = (30, 60, 120)
"""Tools of a set."""
Count = Callable[[str], int]


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
        size: of the set.
        cut: share of the schemas' tokens left out.
        right: whether the needed tool was kept.
        tools: number kept.
    """

    group: str
    size: int
    cut: float
    right: bool
    tools: int


def ranked_sets(
    requests: Sequence[Request],
    pool: Sequence[Request],
    draws: int,
    similarity: Similarity,
    count: Count,
) -> Iterator[RankedSet]:
    """Each request with `draws` sets of each size, made of functions of the pool's requests."""

    @cache
    def tokens(tool: ToolSpec) -> int:
        return count(tool.name) + count(tool.description) + count(tool.parameters)

    for number, request in enumerate(requests):
        others = [other for other in pool if other.group != request.group]
        for size in SIZES:
            for draw in range(draws):
                tools = tool_set(request, others, size, (number, draw))
                near = similarity(request.text, [text_to_embed(tool) for tool in tools])
                words = index_of(tools).scores(request.text)
                yield RankedSet(
                    request,
                    tools,
                    tuple(map(tokens, tools)),
                    tuple(features(near, words)),
                    tuple(probabilities(near, words)),
                )


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
    return Kept(ranked.request.group, size_of(ranked), cut, right, len(places))
