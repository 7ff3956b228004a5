"""One HTTP connection, whose client has bounded time and bytes for everything but bodies.

uvicorn bounds only how long a connection stays idle after an answer. Here a connection also ends
where it is opened and says nothing, sends the head of a request too slowly or without end, or reads
nothing of what was sent; and there are only so many. Bodies and answers under way are the
application's to bound.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger(__name__)
TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
    b"content-length: 2\r\nconnection: close\r\n\r\n{}"
)


@dataclass(frozen=True)
class ConnectionLimits:
    """Bounds of each connection of a port."""

    connections: int = 20_000
    """Of a port; a further one is closed."""
    idle_s: float = 75.0
    """Until the first request, and between requests: as long as clients' pools keep theirs, so that
    none is closed while a request is on its way.
    """
    head_s: float = 15.0
    """Within which the head of a request must come, from its first byte on."""
    head_bytes: int = 128 << 10
    """Of a head; more are not read."""
    unread_s: float = 60.0
    """After which a connection is cut whose client reads nothing, so that it can take no more of an
    answer or cannot be closed.
    """


class BoundedConnection(HttpToolsProtocol):
    """See the module. `limits` are given by `connection_class`."""

    limits = ConnectionLimits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._is_timing_head = False
        self._is_head_open = False
        self._head_bytes = 0
        self._is_bounded = True
        self._unread_bytes, self._unread_since_s = 0, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)  # type: ignore[arg-type]  # a stream's
        if len(self.connections) > self.limits.connections:
            log.warning("a connection is closed: there are %d", len(self.connections) - 1)
            self.transport.abort()
            return
        self._timer = self.loop.call_later(self.limits.idle_s, self._cut)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        super().data_received(data)
        if self._is_head_open:
            self._head_bytes += len(data)
        if not self._is_bounded or self.transport.is_closing():
            self._stop_timer()
        elif self._is_head_open and self._head_bytes > self.limits.head_bytes:
            self._stop_timer()
            self.transport.write(TOO_LARGE)
            self.transport.close()
        elif self._is_head_open or not self._is_answering():
            self._time_head()
        else:
            self._stop_timer()

    def on_message_begin(self) -> None:
        """See httptools."""
        self._is_head_open, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._is_head_open = False
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """The connection is another protocol's from now on."""
        self._is_bounded = False
        super().handle_websocket_upgrade()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came since the last answer."""
        self._cut()

    def cut_unread(self) -> None:
        """Cut the connection where it can take no more, or is being closed, and its client has read
        nothing for too long: until then it would stay, and who sends would wait. Call it from time
        to time; so nobody who sends needs a timer.
        """
        if not (self.flow.write_paused or self.transport.is_closing()):
            self._unread_bytes = 0
            return
        waiting, now = self.transport.get_write_buffer_size(), self.loop.time()
        if waiting != self._unread_bytes:
            self._unread_bytes, self._unread_since_s = waiting, now
        elif waiting and now - self._unread_since_s >= self.limits.unread_s:
            self.transport.abort()

    def _is_answering(self) -> bool:
        """Whether a request is under way."""
        return self.cycle is not None and not self.cycle.response_complete

    def _time_head(self) -> None:
        """Give the head that has begun its time; so for bytes that belong to no request, such as
        the rest of a body after its answer.
        """
        if not self._is_timing_head:
            self._stop_timer()
            self._is_timing_head = True
            self._timer = self.loop.call_later(self.limits.head_s, self._cut)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._is_timing_head = None, False

    def _cut(self) -> None:
        """Close the connection; at once where its client does not read what was sent."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()


def connection_class(limits: ConnectionLimits) -> type[BoundedConnection]:
    """The class of a port's connections."""
    return type("BoundedConnection", (BoundedConnection,), {"limits": limits})
