"""Rules of the source that no linter of ours has: what a decision may touch, what a file may be
called, how long a README is.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("libs", "services")
    for path in (ROOT / folder).glob("*/src/penstock/**/*.py")
    if "libs/api/" not in path.as_posix()
)
WORLD = {
    "asyncio",
    "faiss",
    "grpc",
    "httpx",
    "logging",
    "onnxruntime",
    "os",
    "redis",
    "requests",
    "socket",
    "subprocess",
    "threading",
}
CLOCKS = {
    ("time", name)
    for name in ("time", "monotonic", "perf_counter", "sleep", "time_ns", "monotonic_ns")
}
BANNED = {"utils", "util", "common", "helpers", "helper", "base", "manager", "impl", "misc"}
PURE = [
    ROOT / path
    for path in (
        "services/batcher/src/penstock/batcher/fair_queue.py",
        "services/inference-onnx-quantized/src/penstock/inference_onnx_quantized/classification.py",
        "services/inference-upstream/src/penstock/inference_upstream/protocols/openai_chat.py",
        "services/limiter/src/penstock/limiter/calendar_windows.py",
        "services/limiter/src/penstock/limiter/counters.py",
        "services/limiter/src/penstock/limiter/hints.py",
        "services/router/src/penstock/router/routing/fleet.py",
        "services/router/src/penstock/router/routing/instance_choice.py",
        "services/router/src/penstock/router/routing/strategies.py",
        "services/scaler/src/penstock/scaler/decide/decision.py",
        "services/telemetry/src/penstock/telemetry/window/retention.py",
    )
]


def _identity(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _imports(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", PURE, ids=_identity)
def test_a_decision_touches_nothing_of_the_world(path: Path) -> None:
    tree = _tree(path)
    touched = {name for name in _imports(tree) if name.split(".")[0] in WORLD}
    assert not touched, f"{path.name} imports {touched}"
    calls = {
        (node.func.value.id, node.func.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
    }
    assert not calls & CLOCKS, "a decision is given `now`"
    assert not {call for call in calls if call[0] == "random" and call[1] != "Random"}, (
        "a decision is given `rng`"
    )
    waits = [node for node in ast.walk(tree) if isinstance(node, ast.Await | ast.AsyncFunctionDef)]
    assert not waits, "a decision does not wait"


def test_the_namespace_has_no_init_file() -> None:
    stray = [_identity(path) for path in ROOT.glob("*/*/src/penstock/__init__.py")]
    assert not stray, "an __init__.py here hides every sibling package"


@pytest.mark.parametrize("path", SOURCES, ids=_identity)
def test_no_file_has_a_name_that_says_nothing(path: Path) -> None:
    assert path.stem not in BANNED


@pytest.mark.parametrize("path", sorted((ROOT / "services").iterdir()), ids=lambda path: path.name)
def test_a_service_explains_itself_on_one_screen(path: Path) -> None:
    readme = path / "README.md"
    assert readme.exists(), f"{path.name} has no README.md"
    assert len(readme.read_text().splitlines()) <= 30
