"""Replaying a ledger: the state that its entries add up to, to be compared with the state that the
store keeps. Plain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def replay(
    ledger: Iterable[tuple[str, int, int, int]],
    folded: Mapping[str, tuple[int, int, int]] | None = None,
) -> Mapping[str, tuple[int, int, int]]:
    """The state that a ledger's entries add up to: window, committed and held by counter.

    A later window forgets the one before.

    Args:
        folded: sums of the entries that came before.
    """
    state = dict(folded or {})
    for key, window, committed, held in ledger:
        at, spent, reserved = state.get(key, (window, 0, 0))
        if window > at:
            at, spent, reserved = window, 0, 0
        if window == at:
            state[key] = (at, spent + committed, reserved + held)
    return state
