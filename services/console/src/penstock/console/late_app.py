"""The application of the pages, made for the first browser that comes: its libraries take a second
to load and tens of megabytes, and most of the time nobody looks.

Loading happens in a thread, so what shares the process goes on. Until then a HEAD, by which a
supervisor sees that the port answers, is answered here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from penstock.console.guard import App, Message, Receive, Scope, Send

NO_CONTENT: Message = {"type": "http.response.start", "status": 204, "headers": []}
END: Message = {"type": "http.response.body", "body": b""}


class LateApp:
    """An ASGI application around one that is made when it is first needed.

    Args:
        make: imports and makes it; called in a thread.
    """

    def __init__(self, make: Callable[[], App]) -> None:
        self._make = make
        self._opening: asyncio.Task[LiveApp] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._opening is None and scope.get("method") == "HEAD":
            await send(NO_CONTENT)
            await send(END)
        else:
            live = await self._opened()
            await live.app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """From the server's start to its end."""
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self._opening is not None:
            await (await self._opening).close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _opened(self) -> LiveApp:
        """The application, made once; whoever comes meanwhile waits for it too."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name="load the pages")
        return await asyncio.shield(self._opening)

    async def _open(self) -> LiveApp:
        try:
            live = LiveApp(await asyncio.to_thread(self._make))
            await live.open()
        except BaseException:
            self._opening = None  # the next visitor tries again
            raise
        return live


class LiveApp:
    """An ASGI application whose life is begun and ended here. Owner: whoever opens it closes it."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        self._life: asyncio.Future[Any] | None = None

    async def open(self) -> None:
        """Begin its life; raises what it raises, RuntimeError where it says that it failed."""
        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self._life = asyncio.ensure_future(_run(self.app, scope, self._told.get, self._said.put))
        try:
            await self._pass_through(self._life, "startup")
        except BaseException:
            self._life.cancel()
            raise

    async def close(self) -> None:
        """End its life."""
        if self._life is not None:
            await self._pass_through(self._life, "shutdown")
            await self._life

    async def _pass_through(self, life: asyncio.Future[Any], event: str) -> None:
        await self._told.put({"type": f"lifespan.{event}"})
        saying = asyncio.ensure_future(self._said.get())
        await asyncio.wait((saying, life), return_when=asyncio.FIRST_COMPLETED)
        if not saying.done():
            saying.cancel()
            await life
        elif (said := saying.result())["type"] != f"lifespan.{event}.complete":
            raise RuntimeError(f"the pages: {event} failed: {said.get('message', '')}")


async def _run(
    app: App, scope: Scope, receive: Receive, send: Callable[..., Awaitable[Any]]
) -> None:
    await app(scope, receive, send)
