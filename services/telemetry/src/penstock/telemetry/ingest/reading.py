"""Reading exports from bytes: protobuf or JSON, and one item at a time where the whole cannot be
read.

Text in protobuf is UTF-8, and a parser refuses a whole message for one byte that is not. An export
holds the work of many threads, of which only one wrote that byte. So where an export cannot be
read, it is read again with every text as bytes: names that its items share are repaired, and only
the items that hold such a byte themselves are given up.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from penstock.rpc.errors import invalid
from penstock.telemetry.spans.redaction import points_of

M = TypeVar("M", bound=Message)
TEXT = FieldDescriptor.TYPE_STRING
LEVELS: dict[type[Message], tuple[str, str, str]] = {
    trace_service_pb2.ExportTraceServiceRequest: ("resource_spans", "scope_spans", "spans"),
    metrics_service_pb2.ExportMetricsServiceRequest: (
        "resource_metrics",
        "scope_metrics",
        "metrics",
    ),
    logs_service_pb2.ExportLogsServiceRequest: ("resource_logs", "scope_logs", "log_records"),
}
"""The lists on the way to the items of each export."""

Lists = Callable[[Any, str], Any]
Share = Callable[[Any, Message, str], None]

IDENTIFIERS = ("traceId", "spanId", "parentSpanId")
"""Written in hexadecimal in OTLP's JSON, unlike other bytes."""


@dataclass(frozen=True)
class ReadExport(Generic[M]):
    """An export as a message, and what of it could not be read."""

    message: M
    unreadable: int = 0
    """Spans, points or records whose text is not UTF-8."""


def read_protobuf(kind: type[M], payload: bytes) -> ReadExport[M]:
    """Read a serialised export.

    Raises:
        Fault: the bytes are no such message.
    """
    try:
        return ReadExport(kind.FromString(payload))
    except DecodeError:
        pass
    try:
        with_bytes = _with_bytes_for_text(kind).FromString(payload)
        return _read_items(kind, with_bytes, getattr, _copy_repaired, _read_strict)
    except DecodeError:
        raise invalid("", f"the request is not a {kind.DESCRIPTOR.full_name}") from None


def _read_items(
    kind: type[M], source: Any, lists: Lists, share: Share, read: Callable[[Any, Any], int]
) -> ReadExport[M]:
    """Copy an export item by item.

    Args:
        lists: the elements of a list of the source, by its name.
        share: copies a resource or a scope but for the list that is named.
        read: appends an item to a list, and returns how many items were given up.
    """
    resources, scopes, items = LEVELS[kind]
    export = kind()
    unreadable = 0
    for resource in lists(source, resources):
        new_resource = getattr(export, resources).add()
        share(resource, new_resource, scopes)
        for scope in lists(resource, scopes):
            new_scope = getattr(new_resource, scopes).add()
            share(scope, new_scope, items)
            for item in lists(scope, items):
                unreadable += read(item, getattr(new_scope, items))
    return ReadExport(export, unreadable)


def _read_strict(item: Any, into: Any) -> int:
    """Append an item that is valid; of a metric that is not, the points that are."""
    if _append(item, into):
        return 0
    is_metric = "data" in item.DESCRIPTOR.oneofs_by_name
    return _read_points(item, into) if is_metric else 1


def _append(item: Any, into: Any) -> bool:
    """Append an item; False when it is not valid."""
    try:
        into.add().MergeFromString(item.SerializeToString())
    except DecodeError:
        del into[-1]
        return False
    return True


def _read_points(metric: Any, into: Any) -> int:
    """Append a metric with the points of it that are valid; returns how many are not."""
    new = into.add()
    rest = type(metric).FromString(metric.SerializeToString())
    del points_of(rest)[:]
    _copy_repaired(rest, new, "")
    new_points = points_of(new)
    return sum(not _append(point, new_points) for point in points_of(metric))


def _copy_repaired(source: Any, target: Message, without: str) -> None:
    """Copy a message but for one field, with invalid bytes of its text replaced by U+FFFD."""
    copy = type(source)()
    copy.CopyFrom(source)
    if without:
        copy.ClearField(without)
    _repair(copy, target.DESCRIPTOR)
    target.MergeFromString(copy.SerializeToString())


def _repair(message: Any, strict: Any) -> None:
    for field, value in message.ListFields():
        original = strict.fields_by_name.get(field.name)
        if original is None:
            continue
        if original.type == TEXT:
            _repair_text(message, field, value)
        elif original.message_type is not None:
            for part in value if field.is_repeated else (value,):
                _repair(part, original.message_type)


def _repair_text(message: Any, field: FieldDescriptor, value: Any) -> None:
    if field.is_repeated:
        repaired = [_utf8(text) for text in value]
        del value[:]
        value.extend(repaired)
    else:
        setattr(message, field.name, _utf8(value))


def _utf8(text: bytes) -> bytes:
    return text.decode("utf-8", "replace").encode()


def _with_bytes_for_text(kind: type[Message]) -> type[Any]:
    """The same message with bytes in place of every text; it reads the same wire format."""
    return _bytes_message(kind.DESCRIPTOR.full_name)


@functools.cache
def _bytes_message(full_name: str) -> type[Any]:
    pool = descriptor_pool.DescriptorPool()
    original = descriptor_pool.Default().FindMessageTypeByName(full_name)
    _add_file(pool, original.file, set())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(full_name))


def _add_file(pool: Any, file: Any, added: set[str]) -> None:
    for dependency in file.dependencies:
        if dependency.name not in added:
            _add_file(pool, dependency, added)
    added.add(file.name)
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    for message in proto.message_type:
        _replace_text(message)
    pool.Add(proto)


def _replace_text(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        if field.type == descriptor_pb2.FieldDescriptorProto.TYPE_STRING:
            field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
    for nested in message.nested_type:
        _replace_text(nested)


def read_json(kind: type[M], payload: bytes) -> ReadExport[M]:
    """Read an export in OTLP's JSON encoding.

    Raises:
        Fault: the bytes are no JSON object, or no such message.
    """
    try:
        # Bytes that are not UTF-8 become lone surrogates, which no protobuf text takes.
        source = json.loads(payload.decode("utf-8", "surrogateescape"))
        if not isinstance(source, dict):
            raise ValueError
        return _read_items(kind, source, _list, _parse_shared, _read_json_item)
    except (ValueError, TypeError, AttributeError, RecursionError, json_format.ParseError):
        name = kind.DESCRIPTOR.full_name
        raise invalid("", f"the request is not a {name} in OTLP's JSON encoding") from None


def _read_json_item(item: Any, into: Any) -> int:
    new = into.add()
    try:
        json_format.ParseDict(_with_base64_ids(item), new, ignore_unknown_fields=True)
    except (ValueError, TypeError, AttributeError, json_format.ParseError):
        del into[-1]
        return 1
    return 0


def _parse_shared(source: dict[str, Any], target: Message, without: str) -> None:
    """Read what items share, with text repaired."""
    names = (without, _camel(without))
    rest = {key: value for key, value in source.items() if key not in names}
    json_format.ParseDict(_repaired(rest), target, ignore_unknown_fields=True)


def _list(source: dict[str, Any], name: str) -> list[Any]:
    found = source.get(_camel(name)) or source.get(name) or []
    if not isinstance(found, list):
        raise TypeError(name)
    return found


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _with_base64_ids(value: Any) -> Any:
    """The same JSON with identifiers in base64, as protobuf's own JSON encoding wants them."""
    if isinstance(value, list):
        return [_with_base64_ids(part) for part in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _base64_id(part) if key in IDENTIFIERS else _with_base64_ids(part)
        for key, part in value.items()
    }


def _base64_id(digits: Any) -> str:
    """Hexadecimal digits in base64; empty for what is none, which is then malformed."""
    try:
        return base64.b64encode(binascii.unhexlify(digits)).decode()
    except (ValueError, TypeError):
        return ""


def _repaired(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_repaired(part) for part in value]
    if isinstance(value, dict):
        return {_repaired(key): _repaired(part) for key, part in value.items()}
    return value
