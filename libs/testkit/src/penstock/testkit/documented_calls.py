"""The `grpcurl` lines that the documentation shows, and running them by the real grpcurl."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

COMMAND = "grpcurl "
ASSIGNMENT = re.compile(r"[A-Z_]+=.*")
PAGES = ("README.md", "*/*/README.md", "docs/**/*.md")
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class DocumentedCall:
    """A line of a page, with the shell's assignments that stand above it on the page."""

    page: str
    line: str
    assignments: tuple[str, ...] = ()

    def script(self, addresses: Mapping[str, str]) -> str:
        """What a shell runs; `addresses` gives the real address for each documented one."""
        text = "\n".join((*self.assignments, self.line))
        for documented, real in addresses.items():
            text = re.sub(rf"(?<![\w.]){re.escape(documented)}(?!\d)", real, text)
        return text


@dataclass(frozen=True)
class Outcome:
    """What came of a line: grpcurl's exit status and everything that it printed."""

    call: DocumentedCall
    status: int
    output: str


def documented_calls(root: Path) -> Iterator[DocumentedCall]:
    """Every `grpcurl` line in code blocks of the READMEs and guides below `root`."""
    for page in sorted({path for pattern in PAGES for path in root.glob(pattern)}):
        assignments: list[str] = []
        for line in _code_lines(page.read_text(encoding="utf-8")):
            if ASSIGNMENT.fullmatch(line):
                assignments.append(line)
            elif line.startswith(COMMAND):
                yield DocumentedCall(str(page.relative_to(root)), line, tuple(assignments))


async def run_documented_calls(
    calls: Sequence[DocumentedCall], folder: Path, addresses: Mapping[str, str]
) -> list[Outcome]:
    """Run the lines one after the other.

    Args:
        folder: where they run; lines read `.penstock/internal-token` below it.
        addresses: the real address for each documented one.
    """
    return [await _run(call, folder, addresses) for call in calls]


def _code_lines(text: str) -> Iterator[str]:
    """The lines of fenced code blocks, those that a backslash continues joined."""
    is_code = False
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            is_code = not is_code
        elif is_code:
            yield line.strip()


async def _run(call: DocumentedCall, folder: Path, addresses: Mapping[str, str]) -> Outcome:
    binaries = str(Path(sys.executable).parent)
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-eu",
        "-c",
        call.script(addresses),
        cwd=folder,
        env={**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    return Outcome(call, process.returncode or 0, output.decode())
