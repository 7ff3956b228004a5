"""Removal of content: what people wrote does not stay in telemetry unless their tenant opted in.

Where a tenant did, mail addresses, keys and long numbers are still replaced.
"""

from __future__ import annotations

import re
from typing import Any

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from penstock.otel import attributes as semconv

CONTENT_NAMES = tuple(name.encode() for name in semconv.CONTENT_ATTRIBUTES)
SECRETS = re.compile(
    r"[\w.+-]+@[\w-]+\.[\w.-]+"  # mail addresses
    r"|\b(?:sk|pk|ghp|xox[abp]|AKIA|ps)[-_][\w-]{8,}"  # keys by their usual beginnings
    r"|\bBearer\s+\S+"
    r"|\b(?:\d[ -]?){13,19}\b"  # card and account numbers
)


def redact(text: str) -> str:
    """The text with mail addresses, keys and long numbers replaced by `[redacted]`."""
    return SECRETS.sub("[redacted]", text)


class ContentPolicy:
    """Decides whose content may stay, and removes or redacts it in OTLP requests.

    Args:
        tenants: those who opted in.
    """

    def __init__(self, tenants: tuple[str, ...]) -> None:
        self._tenants = frozenset(tenants)

    def may_have_content(self, payload: bytes) -> bool:
        """Whether a serialised export may hold content: a quick search of its bytes."""
        return any(name in payload for name in CONTENT_NAMES)

    def clean_traces(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        """Remove or redact content in spans and their events, in place."""
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    may_stay = self._may_stay(span.attributes)
                    _clean(span.attributes, may_stay)
                    for event in span.events:
                        _clean(event.attributes, may_stay)

    def clean_logs(self, request: logs_service_pb2.ExportLogsServiceRequest) -> None:
        """Remove or redact content in log records, in place.

        The body of a record is content where its event is a message of a model.
        """
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    may_stay = self._may_stay(record.attributes)
                    _clean(record.attributes, may_stay)
                    if _is_model_message(record):
                        _clean_body(record, may_stay)

    def _may_stay(self, attributes: Any) -> bool:
        return _text(attributes, semconv.TENANT) in self._tenants


def _text(attributes: Any, name: str) -> str:
    """The text of an OTLP attribute; empty when it is missing."""
    return next((pair.value.string_value for pair in attributes if pair.key == name), "")


def _clean(attributes: Any, may_stay: bool) -> None:
    for index in reversed(range(len(attributes))):
        if attributes[index].key not in semconv.CONTENT_ATTRIBUTES:
            continue
        value = attributes[index].value
        if may_stay and value.WhichOneof("value") == "string_value":
            value.string_value = redact(value.string_value)
        else:
            del attributes[index]


def _is_model_message(record: logs_pb2.LogRecord) -> bool:
    name = record.event_name or _text(record.attributes, "event.name")
    return name.startswith("gen_ai.")


def _clean_body(record: logs_pb2.LogRecord, may_stay: bool) -> None:
    if may_stay and record.body.WhichOneof("value") == "string_value":
        record.body.string_value = redact(record.body.string_value)
    else:
        record.ClearField("body")
