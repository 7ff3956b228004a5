"""The calls in flight at a public endpoint with what their callers sent, so that those of a caller
who is not accepted any more can be ended.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from penstock.rpc.auth import Authenticator, CallerMetadata
from penstock.rpc.errors import Fault


class OpenCall:
    """One call in flight: `with open_calls.enter(metadata):` around what serves it. Where the call
    is ended by `end_refused`, the block raises why.
    """

    __slots__ = ("_calls", "_task", "fault", "metadata")

    def __init__(
        self, calls: set[OpenCall], task: asyncio.Task[object], metadata: CallerMetadata
    ) -> None:
        self._calls = calls
        self._task = task
        self.metadata = metadata
        self.fault: Fault | None = None

    def end(self, fault: Fault) -> None:
        """Cancel what serves the call; its caller is told why."""
        self.fault = fault
        self._calls.discard(self)
        self._task.cancel()

    def __enter__(self) -> OpenCall:
        self._calls.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._calls.discard(self)
        if self.fault is not None and isinstance(error, asyncio.CancelledError):
            if asyncio.current_task() is self._task:
                self._task.uncancel()
            raise self.fault from None


class OpenCalls:
    """The calls in flight at one endpoint, over all of its transports."""

    def __init__(self, authenticate: Authenticator) -> None:
        self._authenticate = authenticate
        self._calls: set[OpenCall] = set()

    def __len__(self) -> int:
        return len(self._calls)

    def enter(self, metadata: CallerMetadata, task: asyncio.Task[object] | None = None) -> OpenCall:
        """A call that is served by `task`, by default the current one."""
        serving = task or asyncio.current_task()
        assert serving is not None
        return OpenCall(self._calls, serving, metadata)

    def end_refused(self) -> int:
        """End the calls of whoever would not be accepted now; returns how many.

        Callers are few and calls many, so each caller is authenticated once.
        """
        callers = {call.metadata.credentials(): call.metadata for call in self._calls}
        refusals = {who: self._refusal(metadata) for who, metadata in callers.items()}
        refused = [
            (call, fault)
            for call in self._calls
            if (fault := refusals[call.metadata.credentials()]) is not None
        ]
        for call, fault in refused:
            call.end(fault)
        return len(refused)

    def _refusal(self, metadata: CallerMetadata) -> Fault | None:
        try:
            self._authenticate(metadata)
        except Fault as fault:
            return fault
        return None
