"""The rules of the house that a machine can check, read from the source with `ast`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("libs", "services")
    for path in (ROOT / folder).glob("*/src/penstock/**/*.py")
    if "libs/api/" not in path.as_posix()
)
SERVICES = {path.name.replace("-", "_"): path for path in (ROOT / "services").iterdir() if path.is_dir()}
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
CLOCKS = {("time", name) for name in ("time", "monotonic", "perf_counter", "sleep", "time_ns", "monotonic_ns")}
BANNED = {"utils", "util", "common", "helpers", "helper", "base", "manager", "impl", "misc"}
MAIN_PATH = {
    "router": ("config.py", "__main__.py", "servicer.py", "pipeline.py", "attempts.py", "policy.py", "adapters.py"),
    "batcher": ("config.py", "__main__.py", "servicer.py", "policy.py", "adapters.py"),
    "inference-onnx-quantized": ("config.py", "__main__.py", "servicer.py", "policy.py", "adapters.py"),
}


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _imports(tree: ast.Module) -> set[str]:
    """Every module named by an import outside `if TYPE_CHECKING`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def _identity(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


POLICIES = [path for path in SOURCES if path.name in ("policy.py", "strategies.py", "fleet.py")]


@pytest.mark.parametrize("path", POLICIES, ids=_identity)
def test_a_policy_touches_nothing_of_the_world(path: Path) -> None:
    tree = _tree(path)
    touched = {name for name in _imports(tree) if name.split(".")[0] in WORLD}
    assert not touched, f"{path.name} imports {touched}"
    calls = {
        (node.func.value.id, node.func.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
    }
    assert not calls & CLOCKS, "a policy is given `now`"
    assert not {call for call in calls if call[0] == "random" and call[1] != "Random"}, "a policy is given `rng`"
    waits = [node for node in ast.walk(tree) if isinstance(node, ast.Await | ast.AsyncFunctionDef)]
    assert not waits, "a policy does not wait"


@pytest.mark.parametrize("path", SOURCES, ids=_identity)
def test_no_service_imports_a_sibling(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    own = parts[1].replace("-", "_") if parts[0] == "services" else None
    if parts[0] == "libs" and parts[1] in ("bench", "testkit", "stack"):
        pytest.skip("benchmarks, the test kit and the stack run services")
    siblings = {
        name
        for name in _imports(_tree(path))
        if name.startswith("penstock.") and name.split(".")[1] in SERVICES and name.split(".")[1] != own
    }
    assert not siblings, f"{_identity(path)} imports {siblings}"


def test_the_namespace_has_no_init_file() -> None:
    stray = [_identity(path) for path in ROOT.glob("*/*/src/penstock/__init__.py")]
    assert not stray, "an __init__.py here hides every sibling package"


@pytest.mark.parametrize("path", SOURCES, ids=_identity)
def test_no_file_has_a_name_that_says_nothing(path: Path) -> None:
    assert path.stem not in BANNED


@pytest.mark.parametrize("path", SOURCES, ids=_identity)
def test_a_file_says_what_lives_in_it(path: Path) -> None:
    if path.name == "__init__.py" and not path.read_text().strip():
        return
    assert ast.get_docstring(_tree(path)), f"{_identity(path)} opens without a line that names the room"


@pytest.mark.parametrize("path", SOURCES, ids=_identity)
def test_torch_stays_in_the_model_factory(path: Path) -> None:
    if _identity(path).startswith(("libs/models/", "libs/bench/")):
        return
    heavy = {name.split(".")[0] for name in _imports(_tree(path))} & {"torch", "transformers"}
    assert not heavy


@pytest.mark.parametrize("name", sorted(SERVICES), ids=str)
def test_a_service_explains_itself_in_thirty_lines(name: str) -> None:
    readme = SERVICES[name] / "README.md"
    assert readme.exists(), f"{name} has no README.md"
    assert len(readme.read_text().splitlines()) <= 30


def test_print_how_many_lines_one_request_takes_to_read(capsys: pytest.CaptureFixture[str]) -> None:
    totals = {}
    for service, files in MAIN_PATH.items():
        package = SERVICES[service.replace("-", "_")] / "src/penstock" / service.replace("-", "_")
        present = [package / file for file in files if (package / file).exists()]
        totals[service] = sum(len(path.read_text().splitlines()) for path in present)
    with capsys.disabled():
        shown = ", ".join(f"{service} {lines}" for service, lines in totals.items())
        print(f"\nreading length of one request: {sum(totals.values())} lines ({shown})")
    assert all(totals.values())
