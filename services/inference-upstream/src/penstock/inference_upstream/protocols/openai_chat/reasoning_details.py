"""OpenRouter's `reasoning_details`. Pure: pieces in, whole entries out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from penstock.service.purity import pure

GROWING = ("text", "summary", "data")
"""Fields whose pieces are joined; the others are set once."""


@pure
def merged_details(pieces: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries in order: pieces that follow each other and have the same type and index are one
    entry, since the provider refuses to see its pieces again.
    """
    merged: list[dict[str, Any]] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if last is None or _key(last) != _key(piece) or piece.get("index") is None:
            merged.append(dict(piece))
            continue
        for name, value in piece.items():
            if name in GROWING and isinstance(value, str) and isinstance(last.get(name), str):
                last[name] += value
            elif value is not None:
                last[name] = value
    return merged


def _key(entry: dict[str, Any]) -> tuple[Any, Any]:
    return entry.get("type"), entry.get("index")
