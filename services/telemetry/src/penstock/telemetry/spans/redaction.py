"""What people wrote never stays in telemetry unless their tenant asked for it, and then only
redacted. Plain.
"""

from __future__ import annotations

import re
from typing import Any

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from penstock.otel import attributes as names

MARKS = tuple(name.encode() for name in names.CONTENT_ATTRIBUTES)
SECRETS = re.compile(
    r"[\w.+-]+@[\w-]+\.[\w.-]+"  # mail addresses
    r"|\b(?:sk|pk|ghp|xox[abp]|AKIA|ps)[-_][\w-]{8,}"  # keys by their usual beginnings
    r"|\bBearer\s+\S+"
    r"|\b(?:\d[ -]?){13,19}\b"  # card and account numbers
)


def redact(text: str) -> str:
    """The text without mail addresses, keys and long numbers."""
    return SECRETS.sub("[redacted]", text)


class ContentPolicy:
    """Which tenants record content."""

    def __init__(self, tenants: tuple[str, ...]) -> None:
        self._tenants = frozenset(tenants)

    def concerns(self, payload: bytes) -> bool:
        """Whether an export may hold content at all: a look at its bytes."""
        return any(mark in payload for mark in MARKS)

    def clean_traces(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        """Remove content from spans and their events where their tenant did not ask for it; redact
        it in the others.
        """
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    kept = self._asked(span.attributes)
                    _clean(span.attributes, kept)
                    for event in span.events:
                        _clean(event.attributes, kept)

    def clean_logs(self, request: logs_service_pb2.ExportLogsServiceRequest) -> None:
        """The same for log records, whose body is content where the event is one of a model's
        messages.
        """
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    kept = self._asked(record.attributes)
                    _clean(record.attributes, kept)
                    if _is_message(record):
                        _clean_body(record, kept)

    def _asked(self, attributes: Any) -> bool:
        return (
            next((a.value.string_value for a in attributes if a.key == names.TENANT), "")
            in self._tenants
        )


def _clean(attributes: Any, kept: bool) -> None:
    for index in reversed(range(len(attributes))):
        if attributes[index].key not in names.CONTENT_ATTRIBUTES:
            continue
        value = attributes[index].value
        if kept and value.WhichOneof("value") == "string_value":
            value.string_value = redact(value.string_value)
        else:
            del attributes[index]


def _is_message(record: logs_pb2.LogRecord) -> bool:
    name = record.event_name or next(
        (a.value.string_value for a in record.attributes if a.key == "event.name"), ""
    )
    return name.startswith("gen_ai.")


def _clean_body(record: logs_pb2.LogRecord, kept: bool) -> None:
    if kept and record.body.WhichOneof("value") == "string_value":
        record.body.string_value = redact(record.body.string_value)
    else:
        record.ClearField("body")
