"""Headless Chromium driven over the Chrome DevTools Protocol: open pages, press keys, read text.

It reaches no network but loopback.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from penstock.testkit.eventually import eventually
from websockets.asyncio.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START_TIMEOUT_S = 30.0
COMMAND_TIMEOUT_S = 20.0


def executable() -> str:
    """The path of a Chromium; empty when there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), "")


class CommandError(Exception):
    """The browser refused a command."""


class Page:
    """One tab.

    Console errors and requests beyond loopback are collected, so that a test can assert that there
    were none.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._last_id = 0
        self._responses: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())
        self.errors: list[str] = []
        self.outside: list[str] = []

    async def _read(self) -> None:
        async for text in self._socket:
            message = json.loads(text)
            if "id" in message:
                self._responses.pop(message["id"]).set_result(message)
            else:
                self._on_event(message["method"], message.get("params", {}))

    def _on_event(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(json.dumps(params["args"])[:500])
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")):
                self.outside.append(url)

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol and wait for its result.

        Raises:
            CommandError: the browser refused it.
        """
        self._last_id += 1
        command = {"id": self._last_id, "method": method, "params": params}
        waiting = self._responses[self._last_id] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps(command))
        response = await asyncio.wait_for(waiting, COMMAND_TIMEOUT_S)
        if "error" in response:
            raise CommandError(f"{method}: {response['error']}")
        result: dict[str, Any] = response["result"]
        return result

    async def open(self, url: str) -> None:
        """Go to an address and wait until its content is there."""
        await self.command("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && !!document.querySelector('h1')")

    async def eval(self, expression: str) -> Any:
        """The value of an expression in the page."""
        response = await self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        return response["result"].get("value")

    async def until(self, expression: str, timeout_s: float = 20.0) -> Any:
        """Wait until an expression is true; returns its value.

        Raises:
            AssertionError: it never was.
        """

        async def is_true() -> Any:
            value = await self.eval(expression)
            assert value, f"not true: {expression}\n{await self.text()}\n{self.errors}"
            return value

        # A command fails while the browser leaves one page for another.
        return await eventually(is_true, timeout_s, not_yet=(CommandError,))

    async def text(self) -> str:
        """All visible text."""
        return str(await self.eval("document.body.innerText"))

    async def press(self, key: str) -> None:
        """Press and release a key."""
        code = f"Key{key.upper()}" if key.isalpha() else f"Digit{key}"
        for kind in ("keyDown", "keyUp"):
            event = {
                "type": kind,
                "key": key,
                "code": code,
                "windowsVirtualKeyCode": ord(key.upper()),
            }
            if kind == "keyDown":
                event["text"] = key
            await self.command("Input.dispatchKeyEvent", **event)

    async def save_screenshot(self, path: Path) -> None:
        """Write what is visible as a PNG."""
        shot = await self.command("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.wait([self._reader])
        await self._socket.close()


@contextlib.asynccontextmanager
async def browsing(browser: str) -> AsyncIterator[Page]:
    """A fresh browser with one tab. No host name resolves, so that it reaches nothing but numeric
    loopback addresses.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            browser,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            "--proxy-server=127.0.0.1:9",
            "--proxy-bypass-list=127.0.0.1",
            "--window-size=1280,900",
            f"--user-data-dir={folder}",
            "--remote-debugging-port=0",
            "about:blank",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            url = await _tab_url(Path(folder))
            async with connect(url, max_size=64 << 20, proxy=None) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Network"):
                    await page.command(f"{domain}.enable")
                yield page
                await page.close()
        finally:
            process.terminate()
            await process.wait()


async def _tab_url(folder: Path) -> str:
    """The address of the first tab's socket, once the browser has written where it listens."""

    def written_port() -> str:
        return (folder / "DevToolsActivePort").read_text().partition("\n")[0]

    port = await eventually(written_port, START_TIMEOUT_S, not_yet=(FileNotFoundError,))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    writer.write(
        f"GET /json/list HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    tabs = json.loads(await reader.readexactly(length))
    writer.close()
    return next(str(tab["webSocketDebuggerUrl"]) for tab in tabs if tab["type"] == "page")
