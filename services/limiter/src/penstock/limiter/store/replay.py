"""Replaying a ledger: the state to which its entries add up.

An operator compares it with the state that the store keeps. Entries that were folded are known by
their sums, so a replay begins with those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import redis.asyncio

PAGE_ENTRIES = 10_000
"""Entries that are read at a time."""


class BudgetState(NamedTuple):
    """What a budget has committed and held in its latest window, which begins at `window`."""

    window: int
    committed: int
    held: int


class Booking(NamedTuple):
    """One line of an entry: what was added to a budget's amounts in a window."""

    counter: str
    window: int
    committed: int
    held: int


States = Mapping[str, BudgetState]
"""States by counter."""


def replay(bookings: Iterable[Booking], folded: States | None = None) -> States:
    """The states to which bookings add up; a later window replaces an earlier one.

    Args:
        folded: the states to which the bookings before these add up.
    """
    states = dict(folded or {})
    for counter, window, committed, held in bookings:
        state = states.get(counter)
        if state is None or window > state.window:
            states[counter] = BudgetState(window, committed, held)
        elif window == state.window:
            states[counter] = BudgetState(window, state.committed + committed, state.held + held)
    return states


def differing_counters(replayed: States, stored: States) -> list[str]:
    """Counters whose stored state is not the replayed one, sorted."""
    return sorted(
        counter
        for counter, state in stored.items()
        if state != _state_in_window(replayed.get(counter), state.window)
    )


def _state_in_window(state: BudgetState | None, window: int) -> BudgetState:
    """A replayed state; an empty one if nothing has been booked in the window yet."""
    if state is None or state.window != window:
        return BudgetState(window, 0, 0)
    return state


def parse_states(pairs: Sequence[str]) -> States:
    """States from counters and texts ("window committed held") in turn."""
    return {
        counter: BudgetState(*(int(word) for word in text.split()))
        for counter, text in zip(pairs[::2], pairs[1::2], strict=True)
    }


async def replay_stream(
    client: redis.asyncio.Redis, ledger: str, last: str, folded: States
) -> tuple[int, States]:
    """Replay a ledger up to its entry `last`; returns the number of entries and the states."""
    entries, states, begin = 0, folded, "-"
    while True:
        rows: list[Any] = await client.xrange(ledger, begin, last, count=PAGE_ENTRIES) or []
        states = replay((booking for _, fields in rows for booking in _bookings(fields)), states)
        entries += len(rows)
        if len(rows) < PAGE_ENTRIES:
            return entries, states
        begin = f"({rows[-1][0].decode()}"


async def first_entry(client: redis.asyncio.Redis, ledger: str) -> bytes:
    """The id of a ledger's oldest entry; `0-0` if it has none."""
    rows: list[Any] = await client.xrange(ledger, count=1) or []
    return rows[0][0] if rows else b"0-0"


def _bookings(fields: Mapping[bytes, bytes]) -> Iterable[Booking]:
    for line in fields[b"d"].decode().split("\n"):
        counter, window, committed, held = line.rsplit(" ", 3)
        yield Booking(counter, int(window), int(committed), int(held))
