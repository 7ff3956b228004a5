"""The repository's Python and Lua sources: which files are ours, and what is in them."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

NOT_ON_A_JOURNEY = ("libs/api/", "libs/bench/", "libs/stack/", "libs/testkit/")
"""Generated code, and what starts or tests the services: no reader of a request opens it."""
GENERATED = ("libs/api/",)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Hold the garbage collector back.

    Python 3.11 counts the depth of a syntax tree for the process, not for the parse: a finalizer
    that parses meanwhile (one that logs a traceback does, for its carets) fails the parse that it
    interrupts (https://github.com/python/cpython/issues/106905).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass(frozen=True)
class Source:
    """One source file: its path below the root with `/`, and its text."""

    path: str
    text: str

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def widest(self) -> int:
        """Columns of the longest line."""
        return max((len(line) for line in self.text.splitlines()), default=0)

    @property
    def module(self) -> str:
        """The dotted name that the file is imported by; a package's is that of its folder."""
        parts = self.path.partition("/src/")[2].removesuffix(".py").split("/")
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def is_package(self) -> bool:
        return self.path.endswith("/__init__.py")

    @cached_property
    def tree(self) -> ast.Module:
        with _no_collection():
            return ast.parse(self.text, filename=self.path)

    @cached_property
    def spans(self) -> dict[int, int]:
        """First line to last line of each function and lambda, decorators included."""
        spans: dict[int, int] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            elif isinstance(node, ast.Lambda):
                first = node.lineno
            else:
                continue
            spans[first] = max(spans.get(first, 0), node.end_lineno or node.lineno)
        return spans


class SourceTree:
    """All sources below `services/` and `libs/` of a root, generated ones left out."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.python = list(self._read(".py"))
        self.lua = list(self._read(".lua"))
        self._by_path = {source.path: source for source in (*self.python, *self.lua)}
        self._on_journeys: dict[str, str] = {}

    def _read(self, suffix: str) -> Iterator[Source]:
        for folder in ("libs", "services"):
            for path in sorted((self.root / folder).glob(f"*/src/**/*{suffix}")):
                name = path.relative_to(self.root).as_posix()
                if not name.startswith(GENERATED):
                    yield Source(name, path.read_text(encoding="utf-8"))

    def __getitem__(self, path: str) -> Source:
        return self._by_path[path]

    def on_journeys(self, file: str) -> str:
        """The path below the root of a file that a journey may count; empty for any other file."""
        if file not in self._on_journeys:
            path = Path(file).resolve()
            name = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else ""
            ours = name in self._by_path and not name.startswith(NOT_ON_A_JOURNEY)
            self._on_journeys[file] = name if ours else ""
        return self._on_journeys[file]


def repository() -> Path:
    """The folder that holds `services/` and `libs/`, above this file."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "services").is_dir() and (folder / "libs").is_dir():
            return folder
    raise FileNotFoundError("the sources of the services are not above this file")
