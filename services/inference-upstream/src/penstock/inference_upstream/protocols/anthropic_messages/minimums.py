"""The shortest prefix that Anthropic caches, by model: a breakpoint after a shorter one is silently
skipped. `docs/providers.md` says where the table came from, and when.
"""

from __future__ import annotations

from penstock.service.purity import pure

MINIMUMS: tuple[tuple[str, int], ...] = (
    ("claude-opus-4-5", 4096),
    ("claude-opus-4-6", 4096),
    ("claude-haiku-4-5", 4096),
    ("claude-sonnet-4-6", 2048),
    ("claude-3-5-haiku", 2048),
    ("claude-3-haiku", 2048),
    ("claude-haiku-3", 2048),
)
"""Tokens by the beginning of the model's name."""
OTHER_MINIMUM = 512
"""For models that are not in the table: the shortest that any model has."""
OLDER_MINIMUM = 1024
OLDER = ("claude-opus-4-1", "claude-opus-4-2", "claude-sonnet-4", "claude-3-", "claude-opus-4-0")


@pure
def min_cache_tokens(model: str) -> int:
    """Tokens of the shortest prefix that is cached for a model."""
    name = model.rpartition("/")[2].rpartition(".")[2] or model
    for beginning, tokens in MINIMUMS:
        if name.startswith(beginning):
            return tokens
    return OLDER_MINIMUM if name.startswith(OLDER) else OTHER_MINIMUM
