"""Groups of our modules that import each other in a circle.

Only imports that run when a module is loaded make a cycle that hurts: at the top level, in a
class body, an `if` or a `try`. Imports inside functions and under `TYPE_CHECKING` are a second
graph.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence

from penstock.bench.reading.sources.tree import Source

Graph = Mapping[str, frozenset[str]]


def import_graph(sources: Sequence[Source], *, deferred: bool = False) -> Graph:
    """Which of these modules each one imports; `deferred`: in functions and for types too."""
    modules = {source.module for source in sources}
    return {
        source.module: frozenset(
            name
            for node in _statements(source.tree, deferred)
            for name in _imported(node, source, modules)
            if name != source.module
        )
        for source in sources
    }


def cycles(graph: Graph) -> list[list[str]]:
    """Strongly connected components of more than one module, each sorted (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in sorted(graph.get(module, ())):
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            at = stack.index(module)
            component = sorted(stack[at:])
            del stack[at:]
            if len(component) > 1:
                found.append(component)

    for module in sorted(graph):
        if module not in order:
            visit(module)
    return sorted(found)


def _statements(tree: ast.Module, deferred: bool) -> Iterator[ast.stmt]:
    """Statements that run at import, or all of them."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not deferred:
            continue
        if isinstance(node, ast.If) and _is_type_checking(node.test) and not deferred:
            waiting += node.orelse
            continue
        yield node
        waiting += [child for child in _children(node) if isinstance(child, ast.stmt)]


def _children(node: ast.stmt) -> Iterable[ast.AST]:
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, ast.ExceptHandler | ast.match_case):
            yield from child.body


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def _imported(node: ast.stmt, source: Source, modules: set[str]) -> Iterator[str]:
    """Our modules that a statement imports; `from package import name` may name a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
    elif isinstance(node, ast.ImportFrom):
        base = _absolute(node, source)
        for alias in node.names:
            name = f"{base}.{alias.name}"
            if name in modules:
                yield name
            elif base in modules:
                yield base


def _absolute(node: ast.ImportFrom, source: Source) -> str:
    if not node.level:
        return node.module or ""
    parts = source.module.split(".")
    package = parts if source.is_package else parts[:-1]
    above = package[: len(package) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])
