"""Places that compare a task kind with a name outside `libs/tasks`.

The kinds are those of the contract's `Task`. A place is: a comparison (`==`, `!=`, `in`, `not
in`) with a kind's name or with a constant that holds one, a `case` of one, `HasField` of one, a
comparison of `WhichOneof("task")` with anything but None, a subscript or `get` by one, a
dictionary of them that is given a name, and the same with members of an enumeration
(`TASK_KIND_EMBED`, `TaskKind.EMBED`) or classes (`EmbedTask`). A list that only names kinds, as a
model's card does, does not count. One table a backend may map kinds to adapters: a dictionary
that is called `ADAPTERS`.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence

from google.protobuf.descriptor import Descriptor
from penstock.bench.reading.sources.places import Constants, Place, last_name, place, placed_nodes
from penstock.bench.reading.sources.tree import Source

KINDS_LIBRARY = "libs/tasks/"
ADAPTER_TABLE = "ADAPTERS"
EXEMPT = {
    "generate_task": "the client takes a ready task in place of messages; no other kind can come",
}
"""Functions that may compare kinds, and why."""


def kinds_of(task: Descriptor) -> frozenset[str]:
    """The kinds of a contract's task: the members of its `oneof`."""
    return frozenset(one.name for one in task.oneofs_by_name["task"].fields)


def kind_comparisons(sources: Sequence[Source], kinds: Collection[str]) -> list[Place]:
    """All places, in order of file and line."""
    finder = _Finder(Constants(sources), kinds)
    return sorted(
        place(source, node, around)
        for source in sources
        if not source.path.startswith(KINDS_LIBRARY)
        for node, around in placed_nodes(source)
        if finder.compares(source, node)
    )


class _Finder:
    def __init__(self, constants: Constants, kinds: Collection[str]) -> None:
        self._constants = constants
        self._kinds = set(kinds)
        self._members = {kind.upper() for kind in kinds}
        self._classes = {f"{kind.capitalize()}Task" for kind in kinds}

    def compares(self, source: Source, node: ast.AST) -> bool:
        """Whether a node compares a task kind, as described at the head of the file."""
        if isinstance(node, ast.Compare):
            sides = (node.left, *node.comparators)
            with_none = any(isinstance(side, ast.Constant) and side.value is None for side in sides)
            return not with_none and any(self._names_kind(source, side) for side in sides)
        if isinstance(node, ast.MatchValue):
            return self._names_kind(source, node.value)
        if isinstance(node, ast.MatchClass):
            return self._is_class(node.cls)
        if isinstance(node, ast.Call):
            return self._selects_kind(node)
        if isinstance(node, ast.Subscript):
            return self._is_kind(node.slice)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            return node.value is not None and self._is_table_of_kinds(node)
        return False

    def _names_kind(self, source: Source, side: ast.expr) -> bool:
        texts = self._constants.texts(source, side)
        if any(text in self._kinds for text in texts):
            return True
        sides = side.elts if isinstance(side, ast.Tuple | ast.List | ast.Set) else [side]
        return any(self._is_member(one) or _which_task(one) for one in sides)

    def _is_kind(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Constant) and node.value in self._kinds

    def _is_member(self, node: ast.expr) -> bool:
        """`TaskKind.EMBED` or `pb.TASK_KIND_EMBED`."""
        name = last_name(node) if isinstance(node, ast.Attribute | ast.Name) else ""
        owner = last_name(node.value) if isinstance(node, ast.Attribute) else ""
        of_kinds = any(word in owner for word in ("Kind", "Task"))
        return (name in self._members and of_kinds) or name.removeprefix(
            "TASK_KIND_"
        ) in self._members - {name}

    def _is_class(self, node: ast.expr) -> bool:
        return last_name(node) in self._classes

    def _selects_kind(self, node: ast.Call) -> bool:
        """`HasField("embed")`, `table.get("embed")`, `isinstance(task, EmbedTask)`."""
        name = (
            last_name(node.func)
            if isinstance(node.func, ast.Name)
            else getattr(node.func, "attr", "")
        )
        if name in ("HasField", "get") and node.args:
            return self._is_kind(node.args[0])
        if name == "isinstance" and len(node.args) == 2:
            return any(
                self._is_class(one) for one in ast.walk(node.args[1]) if isinstance(one, ast.expr)
            )
        return False

    def _is_table_of_kinds(self, node: ast.Assign | ast.AnnAssign) -> bool:
        """A dictionary of kinds that is given a name other than `ADAPTERS`."""
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        value = node.value
        if isinstance(value, ast.Call) and len(value.args) == 1:
            value = value.args[0]
        if not isinstance(value, ast.Dict) or any(
            last_name(target) == ADAPTER_TABLE for target in targets
        ):
            return False
        return any(
            key is not None and (self._is_kind(key) or self._is_member(key)) for key in value.keys
        )


def _which_task(node: ast.expr) -> bool:
    """`task.WhichOneof("task")`."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
        return False
    first = node.args[0]
    return (
        node.func.attr == "WhichOneof" and isinstance(first, ast.Constant) and first.value == "task"
    )
