"""Checks of texts, for the kinds that take some."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.rpc.errors import invalid

MAX_TEXTS = 1024


def check_texts(texts: Sequence[str], at: str) -> None:
    """Raise INVALID_ARGUMENT for the first text that cannot be; `at` is put before its name."""
    if not texts:
        raise invalid(f"{at}texts", "needs at least one text")
    if len(texts) > MAX_TEXTS:
        raise invalid(f"{at}texts", f"has {len(texts)} texts; at most {MAX_TEXTS} are allowed")
    for index, text in enumerate(texts):
        if not text.strip():
            raise invalid(f"{at}texts[{index}]", "is empty")
