"""The command `penstock` as a process of its own, as a shell starts it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Ended:
    """What a run of the command gave."""

    status: int | None
    out: str
    error: str


Run = Callable[..., Awaitable[Ended]]


async def run_command(*arguments: str, **variables: str) -> Ended:
    """Run the command to its end, with variables beside those of this process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "penstock.cli",
        *arguments,
        env={**os.environ, **variables},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    return Ended(process.returncode, out.decode(), error.decode())
