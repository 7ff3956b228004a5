"""The examples of docs/examples, run as their first lines say, against a scripted router.

The Go and TypeScript examples run where a folder with their tools and stubs is named.
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
WAIT_S = 120


async def run_example(address: str, folder: Path, *command: str) -> str:
    """What the example prints."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "PENSTOCK_ADDRESS": address, "PENSTOCK_KEY": KEY},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert process.returncode == 0, output.decode()
    return output.decode()


def prepared_folder(variable: str, tool: str, example: str) -> Path:
    """The folder that an environment variable names, with the example copied into it.

    Skips the test where the folder lacks the tool or the generated stubs.
    """
    folder = Path(os.environ.get(variable, ""))
    for needed in (tool, "gen/penstock/api/router/v1"):
        if not (folder / needed).exists():
            pytest.skip(f"{variable} names no folder prepared as the first lines of {example} say")
    shutil.copy(EXAMPLES / example, folder)
    return folder


def check(output: str, router: ScriptedRouter) -> None:
    expected = ["1 values from one", f"1.5 ms, 7 micro-dollars, trace {TRACE_ID}"]
    assert output.splitlines() == expected
    ((options, _),) = router.calls
    assert (options.run_id, options.step) == ("example", "1")


async def test_the_python_example(address: str, router: ScriptedRouter) -> None:
    script = str(EXAMPLES / "embed.py")
    check(await run_example(address, ROOT, sys.executable, script), router)


async def test_the_typescript_example(address: str, router: ScriptedRouter) -> None:
    folder = prepared_folder("PENSTOCK_NODE_TOOLS", "node_modules/tsx", "embed.ts")
    check(await run_example(address, folder, "npx", "tsx", "embed.ts"), router)


async def test_the_go_example(address: str, router: ScriptedRouter) -> None:
    folder = prepared_folder("PENSTOCK_GO_TOOLS", "go.mod", "embed.go")
    check(await run_example(address, folder, "go", "run", "embed.go"), router)
