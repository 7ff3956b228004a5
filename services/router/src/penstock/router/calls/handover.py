"""An answer that outlives its first caller: it is computed by a task of its own, and where that
caller leaves before the end, those who follow the answer own the task and what is held for it.
"""

from __future__ import annotations

import asyncio

from penstock.router.calls.holds import Holds
from penstock.router.calls.state import CallState, Outcome, spent_at_end
from penstock.router.stages import Following
from penstock.service.background import Background


class Handover:
    """Hands answers over to those who follow them, until nobody does."""

    def __init__(self, holds: Holds, background: Background) -> None:
        self._holds = holds
        self._after = background

    def left(
        self, state: CallState, following: Following, computing: asyncio.Task[Outcome]
    ) -> None:
        """The first caller goes without its answer, or with the failure that there is in place of
        one.
        """
        if computing.done() and not computing.cancelled() and computing.exception() is not None:
            return
        state.handed_over = True
        self._after.start(self._go_on(state, following, computing))

    async def _go_on(
        self, state: CallState, following: Following, computing: asyncio.Task[Outcome]
    ) -> None:
        """Let an answer be computed for as long as somebody follows it, and settle it."""
        abandoned = asyncio.get_running_loop().create_task(following.abandoned())
        await asyncio.wait({computing, abandoned}, return_when=asyncio.FIRST_COMPLETED)
        abandoned.cancel()
        computing.cancel()
        await asyncio.wait({computing})
        if computing.cancelled():
            self._holds.settle(state, None, spent_at_end(state, asyncio.CancelledError()))
        elif error := computing.exception():
            self._holds.settle(state, None, spent_at_end(state, error))
        else:
            self._holds.settle(state, computing.result().receipt, None)
