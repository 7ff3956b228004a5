"""The pages' application is made for the first browser, lives once and ends with the server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from penstock.console.late_app import LateApp


class Pages:
    """Makes an application that notes what it is told; `fails` says how often that fails first."""

    def __init__(self, fails: int = 0, *, starts: bool = True) -> None:
        self.fails, self.starts = fails, starts
        self.made = 0
        self.told: list[str] = []

    def make(self) -> Any:
        self.made += 1
        if self.made <= self.fails:
            raise ImportError("no library")
        return self.app

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while not self.told or self.told[-1] != "lifespan.shutdown":
                event = (await receive())["type"]
                self.told.append(event)
                end = "complete" if self.starts else "failed"
                await send({"type": f"{event}.{end}", "message": "no port"})
            return
        self.told.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"seen"})


class Server:
    """What an HTTP server does with an application."""

    def __init__(self, app: LateApp) -> None:
        self._app = app
        self._told: asyncio.Queue[Any] = asyncio.Queue()
        self._said: asyncio.Queue[Any] = asyncio.Queue()

    async def __aenter__(self) -> Server:
        scope = {"type": "lifespan"}
        self._life = asyncio.create_task(self._app(scope, self._told.get, self._said.put))
        await self._told.put({"type": "lifespan.startup"})
        assert (await self._said.get())["type"] == "lifespan.startup.complete"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._told.put({"type": "lifespan.shutdown"})
        assert (await self._said.get())["type"] == "lifespan.shutdown.complete"
        await self._life

    async def get(self, path: str, method: str = "GET") -> int:
        sent: asyncio.Queue[Any] = asyncio.Queue()
        scope = {"type": "http", "method": method, "path": path}
        await self._app(scope, asyncio.Queue[Any]().get, sent.put)
        return int((await sent.get())["status"])


async def test_nothing_is_made_while_nobody_looks() -> None:
    pages = Pages()
    async with Server(LateApp(pages.make)) as server:
        assert await server.get("/", "HEAD") == 204
    assert pages.made == 0


async def test_the_first_browsers_make_it_together_and_the_server_ends_it() -> None:
    pages = Pages()
    async with Server(LateApp(pages.make)) as server:
        found = await asyncio.gather(*(server.get("/") for _ in range(5)))
        assert await server.get("/later", "HEAD") == 200
    assert (found, pages.made) == ([200] * 5, 1)
    assert pages.told == ["lifespan.startup", *["/"] * 5, "/later", "lifespan.shutdown"]


async def test_what_cannot_be_made_is_tried_again_by_the_next_visitor() -> None:
    pages = Pages(fails=1)
    async with Server(LateApp(pages.make)) as server:
        with pytest.raises(ImportError):
            await server.get("/")
        assert await server.get("/") == 200
    assert pages.made == 2


async def test_an_application_that_does_not_start_serves_nobody() -> None:
    pages = Pages(starts=False)
    async with Server(LateApp(pages.make)) as server:
        with pytest.raises(RuntimeError, match="startup failed: no port"):
            await server.get("/")
