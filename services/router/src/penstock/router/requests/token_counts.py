"""Tokens by the models' own tokenizers, where the configuration names them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path

from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.settings import ModelRoute
from penstock.service.settings import BadConfig
from penstock.tasks.kind import TokenCounter

COUNTS_KEPT = 16_384
"""Texts of each tokenizer whose count is remembered: a conversation brings its turns again with
every call.
"""
DIGEST_BYTES = 16


class RememberedCounts:
    """Counts tokens, each of the latest texts once."""

    def __init__(self, count: TokenCounter) -> None:
        self._count = count
        self._known: OrderedDict[bytes, int] = OrderedDict()

    def __call__(self, text: str) -> int:
        """Tokens of a text, without the special ones that a template adds."""
        body = text.encode(errors="surrogatepass")
        key = hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest()
        tokens = self._known.get(key)
        if tokens is None:
            tokens = self._known[key] = self._count(text)
            if len(self._known) > COUNTS_KEPT:
                self._known.popitem(last=False)
        return tokens


class TokenCounts:
    """The tokenizers in force, by model."""

    def __init__(self, counters: Mapping[str, TokenCounter] | None = None) -> None:
        self.replace(counters or {})

    def replace(self, counters: Mapping[str, TokenCounter]) -> None:
        """Put other tokenizers in force."""
        self._counters = counters

    def sized(self, request: ResolvedRequest) -> ResolvedRequest:
        """The request with its size by its model's own tokenizer, where one is named."""
        count = self._counters.get(request.model)
        if count is None and not request.estimate.counted:
            return request
        return request._replace(estimate=request.kind.estimate(request.task, count))


def counters_of(models: Iterable[ModelRoute]) -> Mapping[str, TokenCounter]:
    """The counters of the models that name a tokenizer.

    Raises:
        BadConfig: a tokenizer's file cannot be used.
    """
    return {
        model.name: RememberedCounts(token_counter(model.tokenizer_file, "routes.models"))
        for model in models
        if model.tokenizer_file is not None
    }


def token_counter(path: Path, setting: str) -> TokenCounter:
    """Counts a text's tokens with the tokenizer of that file, without the special ones that a
    template adds.

    Args:
        setting: where the file is named, for the message.

    Raises:
        BadConfig: the file cannot be used.
    """
    from tokenizers import Tokenizer  # loaded only where a file is named

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more exact
        raise BadConfig(
            [f"{setting}: tokenizer_file {path} cannot be used ({type(error).__name__})"]
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
