"""Places that a check found, and what several checks need: names, and texts of constants."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from penstock.bench.reading.sources.tree import Source


@dataclass(frozen=True, order=True)
class Place:
    """One finding: file, line, the function around it (empty at module level), and the code."""

    file: str
    line: int
    function: str
    code: str


def placed_nodes(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Every node with the qualified name of the function around it."""
    waiting: list[tuple[ast.AST, str]] = [(source.tree, "")]
    while waiting:
        node, around = waiting.pop()
        yield node, around
        inner = around
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{around}.{node.name}".lstrip(".")
        waiting += [(child, inner) for child in reversed(list(ast.iter_child_nodes(node)))]


def place(source: Source, node: ast.AST, function: str) -> Place:
    """The place of a node; long code is cut."""
    code = " ".join(ast.unparse(node).split())
    line = getattr(node, "lineno", 0)
    return Place(source.path, line, function, code if len(code) <= 100 else f"{code[:99]}…")


def last_name(node: ast.expr) -> str:
    """The name that an expression ends in: `fault.reason` and `row["reason"]` end in `reason`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Subscript):
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        return key if isinstance(key, str) else last_name(node.value)
    if isinstance(node, ast.Call):
        return last_name(node.func.value) if isinstance(node.func, ast.Attribute) else ""
    return ""


class Constants:
    """Texts that modules give names to, found through `from module import NAME` too."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._own = {source.module: dict(_assigned(source.tree)) for source in sources}
        self._imported = {source.module: dict(_imports(source.tree)) for source in sources}

    def texts(self, source: Source, node: ast.expr) -> list[str]:
        """The texts of a constant, a named one, or a display of them; none of anything else."""
        if isinstance(node, ast.Constant):
            return [node.value] if isinstance(node.value, str) else []
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            return [text for item in node.elts for text in self.texts(source, item)]
        if (
            isinstance(node, ast.Call)
            and last_name(node.func) in ("frozenset", "set", "tuple")
            and node.args
        ):
            return self.texts(source, node.args[0])
        if isinstance(node, ast.Name):
            return self._named(source.module, node.id)
        return []

    def _named(self, module: str, name: str) -> list[str]:
        if name in self._own.get(module, {}):
            value = self._own[module][name]
            return list(_constant_texts(value))
        origin = self._imported.get(module, {}).get(name)
        return (
            self._named(*origin)
            if origin and origin[0] in self._own and origin != (module, name)
            else []
        )


def _constant_texts(node: ast.expr) -> Iterator[str]:
    """Texts in a constant, a display, a set made of one, or the keys of a dictionary."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        for item in node.elts:
            yield from _constant_texts(item)
    elif isinstance(node, ast.Dict):
        for key in node.keys:
            yield from _constant_texts(key) if key is not None else ()
    elif isinstance(node, ast.Call) and last_name(node.func) in ("frozenset", "set", "tuple"):
        for item in node.args:
            yield from _constant_texts(item)


def _assigned(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Module-level names and their values."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _pairs(target, node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield from _pairs(node.target, node.value)


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, part in zip(target.elts, value.elts, strict=False):
            yield from _pairs(one, part)


def _imports(tree: ast.Module) -> Iterator[tuple[str, tuple[str, str]]]:
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, (node.module, alias.name)


def exempt(places: Sequence[Place], reasons: Mapping[str, str]) -> tuple[list[Place], list[Place]]:
    """Places that count, and those in functions that are exempt by name."""
    counted = [one for one in places if one.function not in reasons]
    return counted, [one for one in places if one.function in reasons]
