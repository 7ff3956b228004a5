"""Records which functions all processes enter, and which scripts the stores run, during a call."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import redis.asyncio
from penstock.bench.reading.sources.tree import SourceTree
from penstock.bench.reading.traces.journey import Entered, Recording
from penstock.limiter.script import SCRIPT, files_of

T = TypeVar("T")
HOOK = Path(__file__).parent / "hook"
SOCKETS_VARIABLE = "READING_SOCKETS"
STORE = "store"
NO_FUNCTIONS = ("<module>", "<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>")
"""Code objects that are no functions: a module's first import, and parts of the function around."""
LEDGER_FOLDER = "services/limiter/src/penstock/limiter/ledger"
"""Folder of the files that the limiter joins to the ledger script."""
LEDGER_DIGEST = hashlib.sha1(SCRIPT.encode()).hexdigest()


class ScriptRun(NamedTuple):
    """One run of a script by a store: when, the SHA-1 of its text, and its first argument."""

    at_ns: int
    digest: str
    operation: str


@contextlib.contextmanager
def recorded_processes(folder: Path) -> Iterator[None]:
    """Start a recorder in every Python process that starts in the block; it listens in `folder`."""
    path = os.pathsep.join([str(HOOK), *filter(None, [os.environ.get("PYTHONPATH")])])
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", SOCKETS_VARIABLE)}
    os.environ.update({"PYTHONPATH": path, SOCKETS_VARIABLE: str(folder)})
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
        self._folder = folder
        self._tree = tree
        self._stores = stores

    async def record(
        self, action: Callable[[], Awaitable[T]], after_s: float = 0.0
    ) -> tuple[Recording, T]:
        """Record while `action` runs and for `after_s` more; also returns its result."""
        async with contextlib.AsyncExitStack() as owned:
            monitors = [await owned.enter_async_context(_monitor(url)) for url in self._stores]
            await self._send_to_all(b"begin")
            began_ns = time.monotonic_ns()
            result = await action()
            answered_ns = time.monotonic_ns()
            await asyncio.sleep(after_s)
            reports = await self._send_to_all(b"end")
        first_ns: dict[Entered, int] = {}
        for report in reports:
            self._add(first_ns, report)
        for runs in monitors:
            _add_scripts(first_ns, runs)
        return Recording(first_ns, answered_ns, (answered_ns - began_ns) / 1e9), result

    def _add(self, first_ns: dict[Entered, int], report: dict[str, Any]) -> None:
        program = report["program"].removeprefix("penstock.")
        for file, name, line, at_ns in (*report["functions"], *report["classes"]):
            path = self._tree.on_journeys(file) if file and not name.endswith(NO_FUNCTIONS) else ""
            if path:
                entered = Entered(program, path, name, line)
                first_ns[entered] = min(at_ns, first_ns.get(entered, at_ns))

    async def _send_to_all(self, command: bytes) -> list[dict[str, Any]]:
        return list(
            await asyncio.gather(*(_send(path, command) for path in self._folder.glob("*.sock")))
        )


def _add_scripts(first_ns: dict[Entered, int], runs: Sequence[ScriptRun]) -> None:
    for run in runs:
        if run.digest == LEDGER_DIGEST:
            for name in files_of(run.operation):
                entered = Entered(STORE, f"{LEDGER_FOLDER}/{name}.lua", "the script", 0)
                first_ns.setdefault(entered, run.at_ns)


async def _send(path: Path, command: bytes) -> dict[str, Any]:
    """A recorder's answer; an empty report where the process has ended and left its socket."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
    except ConnectionRefusedError:
        return {"program": "", "functions": [], "classes": []}
    writer.write(command)
    answer = json.loads(await reader.read())
    writer.close()
    return dict(answer)


@contextlib.asynccontextmanager
async def _monitor(url: str) -> AsyncIterator[list[ScriptRun]]:
    """Scripts, each with one key, that a Redis runs while the block lasts.

    The server sends the lines in order, so all have arrived once the mark echoed at the end has.
    """
    runs: list[ScriptRun] = []
    client = redis.asyncio.Redis.from_url(url)
    mark = f"reading-{time.monotonic_ns()}"
    async with client.monitor() as monitor:

        async def read() -> None:
            async for line in monitor.listen():
                name, _, rest = line["command"].partition(" ")
                if name.upper() == "EVALSHA":
                    ago_ns = round((time.time() - line["time"]) * 1e9)
                    digest, _, _, operation, *_ = f"{rest}   ".split(" ")
                    at_ns = time.monotonic_ns() - ago_ns
                    runs.append(ScriptRun(at_ns, digest.lower(), operation))
                elif mark in rest:
                    return

        reader = asyncio.create_task(read())
        try:
            yield runs
            await client.echo(mark)
            await reader
        finally:
            reader.cancel()
            await client.aclose()
