"""Headless Chromium driven over its own protocol: open, press, read, photograph.

No network but loopback reaches it.
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

from websockets.asyncio.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START_S = 30.0


def executable() -> str:
    """Where a browser is; empty when there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), "")


class Page:
    """One tab.

    Console errors and requests that left loopback are kept, so that a test can say there were none.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._next = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())
        self.errors: list[str] = []
        self.outside: list[str] = []

    async def _read(self) -> None:
        async for text in self._socket:
            told = json.loads(text)
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            else:
                self._note(told["method"], told.get("params", {}))

    def _note(self, method: str, said: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(said["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and said["type"] == "error":
            self.errors.append(json.dumps(said["args"])[:500])
        elif method == "Network.requestWillBeSent":
            url = said["request"]["url"]
            if not url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")):
                self.outside.append(url)

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol and wait for its answer."""
        self._next += 1
        waiting = self._answers[self._next] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": self._next, "method": method, "params": params}))
        answer = await asyncio.wait_for(waiting, 20)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, url: str) -> None:
        """Go to an address and wait until its content is there."""
        await self.ask("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && !!document.querySelector('h1')")

    async def eval(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = await self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        return found["result"].get("value")

    async def until(self, expression: str, timeout_s: float = 20.0) -> Any:
        """Wait until an expression is true; gives its value.

        Raises:
            AssertionError: it never was.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    with contextlib.suppress(RuntimeError):  # the page was just being left
                        if value := await self.eval(expression):
                            return value
                    await asyncio.sleep(0.05)
        raise AssertionError(f"never true: {expression}\n{await self.text()}\n{self.errors}")

    async def text(self) -> str:
        """All text that a reader sees."""
        return str(await self.eval("document.body.innerText"))

    async def press(self, key: str) -> None:
        """Press and let go of a key."""
        code = f"Key{key.upper()}" if key.isalpha() else f"Digit{key}"
        for kind in ("keyDown", "keyUp"):
            said = {
                "type": kind,
                "key": key,
                "code": code,
                "windowsVirtualKeyCode": ord(key.upper()),
            }
            await self.ask(
                "Input.dispatchKeyEvent", **said, **({"text": key} if kind == "keyDown" else {})
            )

    async def photograph(self, path: Path) -> None:
        """Write what is seen as a PNG."""
        shot = await self.ask("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.wait([self._reader])
        await self._socket.close()


@contextlib.asynccontextmanager
async def browsing(browser: str) -> AsyncIterator[Page]:
    """A fresh browser with one tab; every name resolves to nothing, so only numeric loopback
    addresses can be reached.
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
            async with connect(await _tab(Path(folder)), max_size=64 << 20, proxy=None) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Network"):
                    await page.ask(f"{domain}.enable")
                yield page
                await page.close()
        finally:
            process.terminate()
            await process.wait()


async def _tab(folder: Path) -> str:
    """The address of the first tab's socket, once the browser has written where it listens."""
    async with asyncio.timeout(START_S):
        while not (folder / "DevToolsActivePort").exists():
            await asyncio.sleep(0.05)
        port = ""
        while not port:
            port = (folder / "DevToolsActivePort").read_text().partition("\n")[0]
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(
            f"GET /json/list HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()
            + b"Connection: close\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        tabs = json.loads(await reader.readexactly(length))
        writer.close()
    return next(str(tab["webSocketDebuggerUrl"]) for tab in tabs if tab["type"] == "page")
