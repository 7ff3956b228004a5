"""Asks the recorders of all processes what they entered, and the stores which scripts they ran."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import redis.asyncio
from penstock.bench.reading.sources.tree import SourceTree
from penstock.bench.reading.traces.journey import Entered, Recording

T = TypeVar("T")
HOOK = Path(__file__).parent / "hook"
SOCKETS = "READING_SOCKETS"
STORE = "store"
NO_FUNCTIONS = ("<module>", "<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>")
"""What is no function to a reader: a module's first import, and parts of the function around."""


@contextlib.contextmanager
def hooked(folder: Path) -> Iterator[None]:
    """Have every Python process that starts meanwhile take a recorder's orders in a folder."""
    path = os.pathsep.join([str(HOOK), *filter(None, [os.environ.get("PYTHONPATH")])])
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", SOCKETS)}
    os.environ.update({"PYTHONPATH": path, SOCKETS: str(folder)})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Recorders:
    """The recorders of the processes that listen in one folder, and the scripts of some stores."""

    def __init__(self, folder: Path, tree: SourceTree, stores: Sequence[str] = ()) -> None:
        self._folder, self._tree, self._stores = folder, tree, stores
        self._scripts = tree.scripts()

    async def record(
        self, act: Callable[[], Awaitable[T]], after_s: float = 0.0
    ) -> tuple[Recording, T]:
        """Record while `act` runs and for `after_s` more; gives what it returned too."""
        async with contextlib.AsyncExitStack() as owned:
            monitors = [await owned.enter_async_context(_monitor(url)) for url in self._stores]
            await self._tell_all(b"begin")
            began_ns = time.monotonic_ns()
            result = await act()
            answered_ns = time.monotonic_ns()
            await asyncio.sleep(after_s)
            reports = await self._tell_all(b"end")
        first_ns: dict[Entered, int] = {}
        for report in reports:
            self._add(first_ns, report)
        for commands in monitors:
            self._add_scripts(first_ns, commands)
        return Recording(first_ns, answered_ns, (answered_ns - began_ns) / 1e9), result

    def _add(self, first_ns: dict[Entered, int], report: dict[str, Any]) -> None:
        program = report["program"].removeprefix("penstock.")
        for file, name, line, at_ns in (*report["functions"], *report["classes"]):
            path = self._tree.on_journeys(file) if file and not name.endswith(NO_FUNCTIONS) else ""
            if path:
                entered = Entered(program, path, name, line)
                first_ns[entered] = min(at_ns, first_ns.get(entered, at_ns))

    def _add_scripts(
        self, first_ns: dict[Entered, int], commands: Sequence[tuple[int, str]]
    ) -> None:
        for at_ns, digest in commands:
            if digest in self._scripts:
                entered = Entered(STORE, self._scripts[digest], "the script", 0)
                first_ns.setdefault(entered, at_ns)

    async def _tell_all(self, word: bytes) -> list[dict[str, Any]]:
        return list(
            await asyncio.gather(*(_tell(path, word) for path in self._folder.glob("*.sock")))
        )


async def _tell(path: Path, word: bytes) -> dict[str, Any]:
    """A recorder's answer; an empty report where the process has ended and left its socket."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
    except ConnectionRefusedError:
        return {"program": "", "functions": [], "classes": []}
    writer.write(word)
    answer = json.loads(await reader.read())
    writer.close()
    return dict(answer)


@contextlib.asynccontextmanager
async def _monitor(url: str) -> AsyncIterator[list[tuple[int, str]]]:
    """Scripts that a Redis runs while the block lasts: nanoseconds, and the SHA-1 of the text.

    The server writes the lines in order, so that all have come when the monitor's own mark has.
    """
    ran: list[tuple[int, str]] = []
    client = redis.asyncio.Redis.from_url(url)
    mark = f"reading-{time.monotonic_ns()}"
    async with client.monitor() as monitor:

        async def read() -> None:
            async for line in monitor.listen():
                name, _, rest = line["command"].partition(" ")
                if name.upper() == "EVALSHA":
                    ago_ns = round((time.time() - line["time"]) * 1e9)
                    ran.append((time.monotonic_ns() - ago_ns, rest.partition(" ")[0].lower()))
                elif mark in rest:
                    return

        reader = asyncio.create_task(read())
        try:
            yield ran
            await client.echo(mark)
            await reader
        finally:
            reader.cancel()
            await client.aclose()
