"""What is declared pure and is not.

A function or a class declares it by a decorator called `pure`, a module by `PURE = True`. Pure
code is given its time and its chance: it waits for nothing, and touches no clock, global chance,
environment, log, file, network or process. What it calls is looked at too, as far as the name
tells: functions of the same module, methods of the same class by `self`, and what is imported
from our own modules.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock.bench.reading.sources.places import Place, last_name
from penstock.bench.reading.sources.tree import Source

DECORATOR, CONSTANT = "pure", "PURE"
WORLD = frozenset(
    {
        "asyncio",
        "faiss",
        "grpc",
        "httpcore",
        "httpx",
        "logging",
        "multiprocessing",
        "onnxruntime",
        "os",
        "redis",
        "requests",
        "secrets",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib",
        "uuid",
    }
)
"""Modules of which pure code uses nothing."""
ALLOWED = frozenset(
    {
        "random.Random",
        "numpy.random.Generator",
        "numpy.random.default_rng",
        "os.path",
        "urllib.parse",
    }
)
BUILT_IN = frozenset({"breakpoint", "eval", "exec", "input", "open", "print"})
NOW = frozenset(
    {
        "monotonic",
        "monotonic_ns",
        "now",
        "perf_counter",
        "sleep",
        "time",
        "time_ns",
        "today",
        "utcnow",
    }
)
"""Methods that read a clock, where they are called on one (`clock.time()`) or on `datetime`."""
CLOCKS = frozenset({"clock", "date", "datetime"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Purity:
    """What is declared pure, and where that is not so: the function and the act."""

    declared: frozenset[tuple[str, str]]
    """Module and qualified name."""
    impure: Sequence[Place]


def purity(sources: Sequence[Source]) -> Purity:
    """Check every declaration."""
    modules = {source.module: _Module(source) for source in sources}
    declared = [(module, name) for module in modules.values() for name in module.declared()]
    found = {
        Place(module.source.path, act.line, name, act.code)
        for module, name in declared
        for act in _acts(modules, module, name, set())
    }
    names = frozenset((module.source.module, name) for module, name in declared)
    return Purity(names, sorted(found))


@dataclass(frozen=True)
class _Act:
    """Something that pure code does not do, at a line of the declared function."""

    line: int
    code: str


class _Module:
    """One module's functions by qualified name, and what its names were imported from."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.functions = dict(_functions(source.tree.body, ""))
        self.imported = dict(_imported(source.tree))

    def declared(self) -> Iterator[str]:
        """Functions declared pure by themselves, their class or their module."""
        whole = any(
            isinstance(node, ast.Assign)
            and any(last_name(target) == CONSTANT for target in node.targets)
            and isinstance(node.value, ast.Constant)
            and node.value.value is True
            for node in self.source.tree.body
        )
        classes = {
            node.name
            for node in self.source.tree.body
            if isinstance(node, ast.ClassDef) and _marked(node)
        }
        for name, function in self.functions.items():
            if whole or _marked(function) or name.partition(".")[0] in classes:
                yield name


def _marked(node: Function | ast.ClassDef) -> bool:
    return any(
        last_name(one.func if isinstance(one, ast.Call) else one) == DECORATOR
        for one in node.decorator_list
    )


def _functions(body: Sequence[ast.stmt], around: str) -> Iterator[tuple[str, Function]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{around}{node.name}", node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{around}{node.name}.")


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names and the dotted names that they stand for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                yield alias.asname or whole, whole
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _acts(
    modules: dict[str, _Module], module: _Module, name: str, seen: set[tuple[str, str]]
) -> list[_Act]:
    """What a function and those it calls do that pure code does not."""
    if (module.source.module, name) in seen:
        return []
    seen.add((module.source.module, name))
    function = module.functions[name]
    acts = [_Act(node.lineno, why) for node, why in _own_acts(function, module)]
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and (called := _called(modules, module, name, node.func)):
            inner = _acts(modules, *called, seen)
            acts += [_Act(node.lineno, f"{called[1]}: {act.code}") for act in inner]
    return acts


def _called(
    modules: dict[str, _Module], module: _Module, name: str, function: ast.expr
) -> tuple[_Module, str] | None:
    """The function of ours that a call enters, where its name tells."""
    if isinstance(function, ast.Name):
        if function.id in module.functions:
            return module, function.id
        return _of_other(modules, module.imported.get(function.id, ""))
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        owner = function.value.id
        if owner in ("self", "cls"):
            method = f"{name.rpartition('.')[0]}.{function.attr}"
            return (module, method) if method in module.functions else None
        return _of_other(modules, f"{module.imported.get(owner, '')}.{function.attr}")
    return None


def _of_other(modules: dict[str, _Module], dotted: str) -> tuple[_Module, str] | None:
    home, _, name = dotted.rpartition(".")
    other = modules.get(home)
    return (other, name) if other is not None and name in other.functions else None


def _own_acts(function: Function, module: _Module) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Statements and expressions of one function, each with what it does."""
    if isinstance(function, ast.AsyncFunctionDef):
        yield function, "is async"
    for node in ast.walk(function):
        if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield node, "waits"
        elif isinstance(node, ast.Global):
            yield node, f"changes global {', '.join(node.names)}"
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in BUILT_IN
        ):
            yield node, f"calls {node.func.id}"
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and _reads_clock(node.func)
        ):
            yield node, f"reads the time by {ast.unparse(node.func)}"
        elif isinstance(node, ast.Name | ast.Attribute) and (used := _world(node, module)):
            yield node, f"uses {used}"


def _reads_clock(function: ast.Attribute) -> bool:
    return function.attr in NOW and last_name(function.value).strip("_") in CLOCKS


def _world(node: ast.Name | ast.Attribute, module: _Module) -> str:
    """The dotted name of the world that an expression uses; empty for none."""
    if isinstance(node.ctx, ast.Store):
        return ""
    dotted = _dotted(node, module)
    root = dotted.partition(".")[0]
    if not dotted or any(dotted == one or dotted.startswith(f"{one}.") for one in ALLOWED):
        return ""
    chance = dotted.startswith(("random.", "numpy.random.")) and dotted.count(".") >= (
        1 if root == "random" else 2
    )
    return dotted if (root in WORLD and "." in dotted) or chance else ""


def _dotted(node: ast.expr, module: _Module) -> str:
    if isinstance(node, ast.Name):
        return module.imported.get(node.id, "")
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value, module)
        return f"{owner}.{node.attr}" if owner else ""
    return ""
