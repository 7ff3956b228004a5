"""Vercel's AI SDK on Node: its providers for OpenAI, for compatible servers and for Anthropic."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from running_gateway import EMBEDDING_MODEL, LOCAL_CHAT, LOCAL_ENCODER, SCRIPTED

NODE = Path(__file__).with_name("node")
NODE_S = 60.0
WIRES = ("openai-responses", "openai-chat", "compatible", "anthropic")


def run_case(*arguments: str) -> None:
    """Run one case; what it printed is the failure."""
    node = shutil.which("node")
    assert node and (NODE / "node_modules").is_dir(), "the AI SDK is missing: `make conformance`"
    done = subprocess.run(
        [node, "cases.mjs", *arguments],
        cwd=NODE,
        capture_output=True,
        text=True,
        timeout=NODE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]


@pytest.mark.parametrize("model", SCRIPTED)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "case", ["text", "stream", "tool", "streamed_tool", "form", "turns", "failure"]
)
def test_scripted(case: str, wire: str, model: str) -> None:
    run_case(case, wire, model)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("case", ["text", "stream"])
def test_local_model(case: str, wire: str) -> None:
    run_case(case, wire, LOCAL_CHAT)


@pytest.mark.parametrize("model", [LOCAL_ENCODER, EMBEDDING_MODEL])
@pytest.mark.parametrize("wire", ["openai-chat", "compatible"])
def test_embeddings(wire: str, model: str) -> None:
    run_case("embeddings", wire, model)
