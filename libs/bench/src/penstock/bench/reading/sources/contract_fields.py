"""Contract fields that nothing writes or nothing reads, by the names that our code uses.

Types of expressions are not known here, so a field counts as used where any attribute, argument
or text of its name is used in a file that handles messages; `self.name` is never one, and the
argument of another message's constructor is that message's. So every field that is found is dead,
and a dead field whose name is also used for something else is missed.

Callers outside this repository write the requests and read the responses of the services of
`OUTSIDE` and of every RPC that our own code never calls. Those fields need only the other half
here.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, MethodDescriptor
from penstock.bench.reading.sources.tree import Source

OUTSIDE = {
    "RouterService": "applications call it",
    "TelemetryService": "operators ask it, with grpcurl too",
    "ScalerService": "operators and other schedulers call it",
    "LimiterAdminService": "operators call it",
}
"""Services with callers outside this repository, by name, and who they are."""
MESSAGE_PACKAGES = ("penstock.api", "google.protobuf")
"""A file that handles messages imports one of these."""
CHANGING_METHODS = frozenset(
    {
        "add",
        "append",
        "clear",
        "CopyFrom",
        "extend",
        "insert",
        "MergeFrom",
        "ParseFromString",
        "pop",
        "SetInParent",
        "update",
    }
)
"""Methods that change the message, list or map they are called on."""


@dataclass(frozen=True, order=True)
class DeadField:
    """A field of a message, and which half is missing: `written`, `read`, or both."""

    message: str
    name: str
    missing: str


@dataclass
class Uses:
    """Names of fields as the code uses them."""

    written: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    constructed: set[tuple[str, str]] = field(default_factory=set)
    """Pairs of a function's name, perhaps a message's constructor, and an argument."""
    passed: set[str] = field(default_factory=set)
    """Fields passed to a function, which may fill them where they are messages or lists."""
    dictionaries: list[frozenset[str]] = field(default_factory=list)
    """Keys of dictionaries, which may be a constructor's arguments."""
    called: set[str] = field(default_factory=set)
    """Names of RPCs that are called, by stub or by name."""


def dead_fields(sources: Iterable[Source], files: Sequence[FileDescriptor]) -> list[DeadField]:
    """Fields of the contracts' messages that nothing writes, nothing reads, or both."""
    uses = collected(
        source.tree for source in sources if any(word in source.text for word in MESSAGE_PACKAGES)
    )
    names = {message.name for message in _messages(files)}
    uses.written |= {given for called, given in uses.constructed if called not in names}
    outside = [method for method in _methods(files) if _for_outside(method, uses)]
    given = _reachable(method.input_type for method in outside)
    taken = _reachable(method.output_type for method in outside)
    found = []
    for message in _messages(files):
        for one in message.fields:
            written = message.full_name in given or _is_written(message, one, uses)
            read = message.full_name in taken or one.name in uses.read
            if not (written and read):
                halves = [
                    word for word, there in (("written", written), ("read", read)) if not there
                ]
                found.append(
                    DeadField(
                        message.full_name.removeprefix("penstock.api."),
                        one.name,
                        " and ".join(halves),
                    )
                )
    return sorted(found)


def _is_written(message: Descriptor, one: FieldDescriptor, uses: Uses) -> bool:
    if one.name in uses.written or (message.name, one.name) in uses.constructed:
        return True
    if one.name in uses.passed and (one.message_type is not None or one.is_repeated):
        return True
    fields = {other.name for other in message.fields}
    return any(one.name in keys and len(keys) > 1 and keys <= fields for keys in uses.dictionaries)


def _for_outside(method: MethodDescriptor, uses: Uses) -> bool:
    return method.containing_service.name in OUTSIDE or method.name not in uses.called


def _methods(files: Sequence[FileDescriptor]) -> Iterator[MethodDescriptor]:
    for file in files:
        for service in file.services_by_name.values():
            yield from service.methods


def _messages(files: Sequence[FileDescriptor]) -> Iterator[Descriptor]:
    waiting = [message for file in files for message in file.message_types_by_name.values()]
    while waiting:
        message = waiting.pop()
        if not message.GetOptions().map_entry:
            yield message
            waiting += message.nested_types


def _reachable(messages: Iterable[Descriptor]) -> Collection[str]:
    """Full names of messages and of all that they hold."""
    found: set[str] = set()
    waiting = list(messages)
    while waiting:
        message = waiting.pop()
        if message.full_name not in found:
            found.add(message.full_name)
            waiting += [one.message_type for one in message.fields if one.message_type is not None]
    return found


def collected(trees: Iterable[ast.Module]) -> Uses:
    """What the code of some files uses."""
    uses = Uses()
    for tree in trees:
        _collect(tree, uses)
    return uses


def _collect(tree: ast.Module, uses: Uses) -> None:
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                _collect_attribute(node, parents, uses)
        elif isinstance(node, ast.Call):
            _collect_call(node, uses)
        elif isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            uses.dictionaries.append(frozenset(key for key in keys if isinstance(key, str)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # HasField, WhichOneof, getattr, setattr, and the name of an RPC.
            uses.read.add(node.value)
            uses.called.add(node.value)


def _collect_call(node: ast.Call, uses: Uses) -> None:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    uses.constructed |= {(name, keyword.arg) for keyword in node.keywords if keyword.arg}
    if isinstance(node.func, ast.Attribute):
        uses.called.add(node.func.attr)
    if name == "setattr" and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
        uses.written.add(str(node.args[1].value))


def _collect_attribute(node: ast.Attribute, parents: dict[ast.AST, ast.AST], uses: Uses) -> None:
    if _changes(node, parents):
        uses.written.add(node.attr)
        return
    uses.read.add(node.attr)
    outer = parents.get(node)
    if isinstance(outer, ast.Call) and not _constructs(outer) and not _is_request(node.value):
        uses.passed.add(node.attr)


def _constructs(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name.lstrip("_")[:1].isupper()


def _is_request(node: ast.expr) -> bool:
    """A message that came in, which nobody fills any more."""
    return isinstance(node, ast.Name) and node.id == "request"


def _changes(node: ast.Attribute, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether the field is assigned or changed in place."""
    if isinstance(node.ctx, ast.Store):
        return True
    outer = parents.get(node)
    while isinstance(outer, ast.Attribute | ast.Subscript):  # a part of it is changed
        if isinstance(outer.ctx, ast.Store) or (
            isinstance(outer, ast.Attribute) and outer.attr in CHANGING_METHODS
        ):
            return True
        outer = parents.get(outer)
    return False
