"""The examples of docs/examples, run as their first lines say, against a real door.

Go and TypeScript run where their tools are.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest
from penstock.testkit.router import KEY, TRACE_ID, ScriptedRouter

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
SOON_S = 120


async def said(address: str, folder: Path, *command: str) -> str:
    """What the example prints."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "PENSTOCK_ADDRESS": address, "PENSTOCK_KEY": KEY},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), SOON_S)
    assert process.returncode == 0, out.decode()
    return out.decode()


def brought(variable: str, within: str, example: str) -> Path:
    """The folder that the variable names, with its tools and generated stubs, and the example put
    into it.
    """
    folder = Path(os.environ.get(variable, ""))
    for needed in (within, "gen/penstock/api/router/v1"):
        if not (folder / needed).exists():
            pytest.skip(f"{variable} names no folder prepared as the first lines of {example} say")
    shutil.copy(EXAMPLES / example, folder)
    return folder


def judge(out: str, router: ScriptedRouter) -> None:
    assert out.splitlines() == ["1 values from one", f"1.5 ms, 7 micro-dollars, trace {TRACE_ID}"]
    ((options, _),) = router.calls
    assert (options.run_id, options.step) == ("example", "1")


async def test_python(address: str, router: ScriptedRouter) -> None:
    judge(await said(address, ROOT, sys.executable, str(EXAMPLES / "embed.py")), router)


async def test_typescript(address: str, router: ScriptedRouter) -> None:
    folder = brought("PENSTOCK_NODE_TOOLS", "node_modules/tsx", "embed.ts")
    judge(await said(address, folder, "npx", "tsx", "embed.ts"), router)


async def test_go(address: str, router: ScriptedRouter) -> None:
    folder = brought("PENSTOCK_GO_TOOLS", "go.mod", "embed.go")
    judge(await said(address, folder, "go", "run", "embed.go"), router)
