"""The examples of `docs/examples` for HTTP clients, run as they stand against the local models."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running_gateway import EDGE, KEY, LOCAL_CHAT, OPENAI_MODEL

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
NODE = Path(__file__).with_name("node")
EXAMPLE_S = 100.0


def output_of(command: list[str], model: str, folder: Path) -> str:
    """What an example printed; it must succeed."""
    variables = {"PENSTOCK_EDGE": EDGE, "PENSTOCK_KEY": KEY, "PENSTOCK_MODEL": model}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=EXAMPLE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout


@pytest.mark.parametrize(
    "name",
    ["openai_chat.py", "openai_responses.py", "anthropic_messages.py", "langchain_chat.py"],
)
def test_chats_with_the_local_model(name: str, tmp_path: Path) -> None:
    said = output_of([sys.executable, str(EXAMPLES / name)], LOCAL_CHAT, tmp_path)
    assert len(said.splitlines()) >= 2


@pytest.mark.parametrize("name", ["openai_agents.py", "pydantic_ai_agent.py"])
def test_agents_with_a_model_that_calls_tools(name: str, tmp_path: Path) -> None:
    said = output_of([sys.executable, str(EXAMPLES / name)], OPENAI_MODEL, tmp_path)
    assert "21 degrees" in said


def test_curl(tmp_path: Path) -> None:
    said = output_of(["bash", str(EXAMPLES / "curl.sh")], LOCAL_CHAT, tmp_path)
    for part in (
        '"chat.completion"',
        "data: [DONE]",
        '"embedding"',
        '"list"',
        "event: message_stop",
        '"input_tokens"',
        '"relevance_score"',
        '"request_id"',
    ):
        assert part in said


def test_ai_sdk(tmp_path: Path) -> None:
    node = shutil.which("node")
    assert node, "Node is missing"
    # Node looks for packages beside the file.
    example = shutil.copy(EXAMPLES / "ai_sdk.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(NODE / "node_modules")
    said = output_of([node, example], OPENAI_MODEL, tmp_path)
    assert "21 degrees" in said
