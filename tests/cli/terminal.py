"""The command in a real terminal: a pseudo-terminal of a given width, typed into and read."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator

from penstock.testkit.eventually import eventually

ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|[()][A-Z0-9]|[=>])")
WAIT_S = 60.0
CTRL_C, CTRL_D = "\x03", "\x04"


class Terminal:
    """A running command and its screen. Made by `in_terminal`."""

    def __init__(self, master: int, process: asyncio.subprocess.Process) -> None:
        self._master = master
        self._process = process
        self._received = bytearray()
        asyncio.get_running_loop().add_reader(master, self._read)

    @property
    def text(self) -> str:
        """All that was printed so far, without colours and cursor movements."""
        return ESCAPES.sub("", self._received.decode(errors="replace")).replace("\r", "")

    def type(self, keys: str) -> None:
        """Type on the keyboard."""
        os.write(self._master, keys.encode())

    async def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until the screen has shown a text so many times."""
        await eventually(lambda: self.text.count(text) >= times, WAIT_S)

    async def ended(self) -> int:
        """Wait for the end; returns the exit status."""
        return await asyncio.wait_for(self._process.wait(), WAIT_S)

    def _read(self) -> None:
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # The other side is closed.
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self._received += data


@contextlib.asynccontextmanager
async def in_terminal(
    *arguments: str, columns: int = 80, **variables: str
) -> AsyncIterator[Terminal]:
    """Run the command in a terminal of so many columns; it is killed at the end."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "penstock.cli",
        *arguments,
        env={**environment, "TERM": "xterm-256color", **variables},
        preexec_fn=lambda: os.login_tty(slave),
        pass_fds=(slave,),
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        asyncio.get_running_loop().remove_reader(master)
        os.close(master)
