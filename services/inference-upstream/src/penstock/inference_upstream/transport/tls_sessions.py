"""TLS sessions of one upstream, so that a new connection resumes an earlier one's (RFC 8446, 2.2).

A resumed handshake is shorter and shows no certificate. asyncio and anyio take no session, but they
make TLS objects of `SSLContext.sslobject_class` and let them shake hands. An object of a class of
ours therefore sets a session before its handshake, and saves one when it first reads: TLS 1.3 sends
its tickets after the handshake.
"""

from __future__ import annotations

import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

MAX_SESSIONS = 32
MAX_RESUMPTION_AGE_S = 3600.0
"""After so long the server must show its certificate again, which may have expired since."""


class SavedSession(NamedTuple):
    """A session, the host name that it was agreed with, and when the host last showed its
    certificate.
    """

    host: str | None
    verified_at_s: float
    session: ssl.SSLSession


class TlsSessions:
    """The sessions that connections of one context have left; the oldest is dropped when there are
    too many.

    Each is used once, as RFC 8446 (C.4) asks, so one whose handshake fails is not tried again.
    """

    def __init__(self, context: ssl.SSLContext, now: Callable[[], float] = time.monotonic) -> None:
        """Let the context's connections use these sessions from now on.

        Args:
            context: one upstream's own.
            now: the time in seconds.
        """
        self.now = now
        self.resumed = 0
        """Handshakes that a session has shortened."""
        self._saved: deque[SavedSession] = deque(maxlen=MAX_SESSIONS)
        context.sslobject_class = type("Resuming", (_ResumingSslObject,), {"sessions": self})

    def take(self, host: str | None) -> SavedSession | None:
        """Take out the newest session with this host; None where none is new enough."""
        min_verified_s = self.now() - MAX_RESUMPTION_AGE_S
        for saved in reversed(self._saved):
            if saved.host == host and saved.verified_at_s > min_verified_s:
                self._saved.remove(saved)
                return saved
        return None

    def save(self, session: SavedSession) -> None:
        """Keep a session for a later connection."""
        self._saved.append(session)

    def __len__(self) -> int:
        return len(self._saved)


class _ResumingSslObject(ssl.SSLObject):
    """A client's TLS object that resumes a session where there is one.

    The standard library makes it without calling `__init__`, hence the class attributes.
    """

    sessions: TlsSessions
    _has_begun = False
    _has_read = False
    _taken: SavedSession | None = None
    _verified_at_s = 0.0

    def do_handshake(self) -> None:
        """Go on with the handshake; the first of its calls sets a session."""
        if not self._has_begun:
            self._has_begun = True
            self._taken = self.sessions.take(self.server_hostname)
            if self._taken is not None:
                self.session = self._taken.session
        super().do_handshake()
        if self._taken is not None and self.session_reused:
            self.sessions.resumed += 1
            self._verified_at_s = self._taken.verified_at_s
        else:
            self._verified_at_s = self.sessions.now()

    def read(self, *args: Any, **kwargs: Any) -> bytes:
        """Read; the first data that comes saves the session with its tickets."""
        data = super().read(*args, **kwargs)
        if not self._has_read:
            self._has_read = True
            if self.session is not None:
                saved = SavedSession(self.server_hostname, self._verified_at_s, self.session)
                self.sessions.save(saved)
        return data
