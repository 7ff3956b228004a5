"""The suites: which tests, run where, and which variable names a checkout that holds them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[6]
TESTS = ROOT / "tests" / "conformance"
VENV = ROOT / ".venv-conformance"


@dataclass(frozen=True)
class Suite:
    """One run of pytest.

    Attributes:
        name: as in the log and in `leave_out.toml`.
        tests: files and folders, in the folder that it runs in.
        variable: names the checkout with the tests; empty: they are in this repository.
        api_path: what follows the edge's address in the base address of a checkout's tests.
    """

    name: str
    tests: tuple[str, ...]
    variable: str = ""
    api_path: str = ""

    def folder(self, environ: Mapping[str, str]) -> Path | None:
        """Where it runs; None where its checkout is not named."""
        if not self.variable:
            return TESTS
        named = environ.get(self.variable, "")
        return Path(named) if named else None


SUITES = (
    Suite(
        "openai",
        tuple(f"test_openai_{part}.py" for part in ("chat", "errors", "responses", "rest")),
    ),
    Suite("anthropic", ("test_anthropic_errors.py", "test_anthropic_messages.py")),
    Suite("langchain", ("test_langchain_anthropic.py", "test_langchain_openai.py")),
    Suite("agents", ("test_agents.py",)),
    Suite("ai-sdk", ("test_ai_sdk.py",)),
    Suite("examples", ("test_examples.py",)),
    Suite("schemathesis", ("test_description.py",)),
    Suite(
        "openai-python",
        (
            "tests/api_resources/chat",
            "tests/api_resources/responses",
            "tests/api_resources/test_embeddings.py",
            "tests/api_resources/test_models.py",
            "tests/api_resources/test_responses.py",
        ),
        variable="PENSTOCK_OPENAI_PYTHON",
        api_path="/v1",
    ),
    Suite(
        "anthropic-sdk-python",
        (
            "tests/api_resources/beta/test_messages.py",
            "tests/api_resources/beta/test_models.py",
            "tests/api_resources/messages",
            "tests/api_resources/test_completions.py",
            "tests/api_resources/test_messages.py",
            "tests/api_resources/test_models.py",
        ),
        variable="PENSTOCK_ANTHROPIC_SDK",
    ),
)


def command(suite: Suite, report: Path) -> list[str]:
    """How to run it; `report` takes the results as JUnit's XML."""
    python = str(VENV / "bin" / "python")
    options = ["-q", "-p", "leave_out", "-p", "no:cacheprovider", f"--junitxml={report}"]
    if suite.variable:
        options += ["-o", "addopts="]  # A package's own options ask for plugins of its own.
    return [python, "-m", "pytest", *options, *suite.tests]


def environment(suite: Suite, folder: Path, gateway: Mapping[str, str]) -> dict[str, str]:
    """The variables for it: how it finds the gateway, its own sources, and what is left out."""
    sources = [str(TESTS), *([str(folder / "src")] if suite.variable else [])]
    return {
        **os.environ,
        **gateway,
        "CONFORMANCE_SUITE": suite.name,
        "TEST_API_BASE_URL": gateway["PENSTOCK_EDGE"] + suite.api_path,
        "PYTHONPATH": os.pathsep.join(sources),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
