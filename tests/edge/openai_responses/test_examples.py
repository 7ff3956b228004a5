"""The examples of docs/examples for the packages of OpenAI and Anthropic, run as they stand."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from echoing_edge import EchoingEdge
from penstock.testkit.router import KEY

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
WAIT_S = 120


async def printed(edge: EchoingEdge, example: str) -> list[str]:
    """The lines that an example prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / example),
        env={**os.environ, "PENSTOCK_EDGE": edge.url, "PENSTOCK_KEY": KEY},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert process.returncode == 0, output.decode()
    return output.decode().splitlines()


async def test_messages_by_anthropics_package(edge: EchoingEdge) -> None:
    lines = await printed(edge, "anthropic_messages.py")
    assert lines == ["WHERE IS PARIS?", "10 tokens in, 4 out", "AND ROME?"]
    assert edge.router.calls[0][0].run_id == "example"


async def test_responses_by_openais_package(edge: EchoingEdge) -> None:
    lines = await printed(edge, "openai_responses.py")
    assert lines == ["WHERE IS PARIS?", "AND ROME?", "3 items before it"]
    assert edge.texts == ["Where is Paris?", "WHERE IS PARIS?", "And Rome?"]
