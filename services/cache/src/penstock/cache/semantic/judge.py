"""The judge of free answers: are two answers to a request equivalent?

A judge sees prompts and answers of tenants, and is asked after the answer has left. Where it gives
no plain verdict, nothing is learnt.
"""

from __future__ import annotations

from typing import Protocol


class Judge(Protocol):
    """Says whether one answer may be given in place of another."""

    async def are_equivalent(self, prompt: str, one: str, other: str) -> bool | None:
        """Whether two answers to a prompt are equivalent; None without a verdict."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
