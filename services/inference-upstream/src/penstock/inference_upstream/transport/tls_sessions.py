"""TLS sessions of one upstream: what a connection leaves so that the next need not prove everything
again (RFC 8446, 2.2). No network here.

asyncio and anyio take no session, but they make TLS objects by `SSLContext.sslobject_class` and
have them shake hands, so an object of ours asks for a session before its handshake and leaves one
when it first reads: TLS 1.3 sends its tickets after the handshake.
"""

from __future__ import annotations

import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

MAX_SESSIONS = 32
MAX_RESUMPTION_AGE_S = 3600.0
"""After so long the server must show its certificate again: a resumed handshake does not, and it
may have ended since.
"""


class SavedSession(NamedTuple):
    """A session, the host name that it was agreed with, and when that host last showed its
    certificate.
    """

    host: str | None
    proved_s: float
    session: ssl.SSLSession


class TlsSessions:
    """What the connections of one context leave for later ones to the same host name; the oldest
    goes where there are too many.

    Each is used once, as RFC 8446 (C.4) asks, so one whose handshake fails is gone.
    """

    def __init__(self, context: ssl.SSLContext, now: Callable[[], float] = time.monotonic) -> None:
        """`context` must be one upstream's own: the TLS objects that it makes use these sessions
        from now on.
        """
        self.now = now
        self.resumed = 0
        """Handshakes that a session has shortened."""
        self._left: deque[SavedSession] = deque(maxlen=MAX_SESSIONS)
        context.sslobject_class = type("Resuming", (_ResumingSslObject,), {"sessions": self})

    def take(self, host: str | None) -> SavedSession | None:
        """The newest session with this host, which is kept no longer; None where there is none that
        is new enough.
        """
        least_s = self.now() - MAX_RESUMPTION_AGE_S
        found = next(
            (
                left
                for left in reversed(self._left)
                if left.host == host and left.proved_s > least_s
            ),
            None,
        )
        if found is not None:
            self._left.remove(found)
        return found

    def leave(self, left: SavedSession) -> None:
        """Keep a session for a later connection."""
        self._left.append(left)

    def __len__(self) -> int:
        return len(self._left)


class _ResumingSslObject(ssl.SSLObject):
    """A client's TLS object that resumes where it can.

    The standard library makes it without `__init__`, hence the defaults.
    """

    sessions: TlsSessions
    _began = _read = False
    _taken: SavedSession | None = None
    _proved_s = 0.0

    def do_handshake(self) -> None:
        """Called again and again until it raises nothing more; the first time takes a session."""
        if not self._began:
            self._began = True
            self._taken = self.sessions.take(self.server_hostname)
            if self._taken is not None:
                self.session = self._taken.session
        super().do_handshake()
        resumed = self._taken if self.session_reused else None
        self.sessions.resumed += resumed is not None
        self._proved_s = resumed.proved_s if resumed else self.sessions.now()

    def read(self, *wanted: Any, **named: Any) -> bytes:
        """The first one that brings something leaves the session, tickets and all."""
        data = super().read(*wanted, **named)
        if not self._read:
            self._read = True
            if self.session is not None:
                self.sessions.leave(
                    SavedSession(self.server_hostname, self._proved_s, self.session)
                )
        return data
