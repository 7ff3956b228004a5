"""Removal of content: what people wrote does not stay in telemetry unless their tenant opted in.

Which attributes hold content is decided by families of names, see `penstock.otel.content`; it is
looked for wherever OTLP has attributes, in nested values too. A status message and the body of a
model's log record are content as well. Where a tenant opted in, mail addresses, keys and long
numbers are still replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2
from penstock.otel import attributes as semconv
from penstock.otel.content import is_content
from penstock.telemetry.spans.spans import Value, plain_value

SECRETS = re.compile(
    r"[\w.+-]+@[\w-]+\.[\w.-]+"  # mail addresses
    r"|\b(?:sk|pk|ghp|xox[abp]|AKIA|ps)[-_][\w-]{8,}"  # keys by their usual beginnings
    r"|\bBearer\s+\S+"
    r"|\b(?:\d[ -]?){13,19}\b"  # card and account numbers
)
STATUS_CODE = re.compile(r"[A-Za-z_]{0,32}|\d{1,3}")
"""A status message that is the name or number of a code, and no text."""

MODEL_SCOPES = re.compile(
    r"gen_?ai|openai|anthropic|bedrock|vertex|cohere|mistral|ollama|groq|langchain|langgraph|llama"
    r"|openinference|traceloop|crewai|litellm|pydantic.ai|agent",
    re.IGNORECASE,
)
"""Instrumentation scopes whose log records are messages of models."""

MODEL_NAMES = ("gen_ai.", "llm.", "traceloop.", "openinference.")
"""How event names and attributes begin that only a model's log records have."""

NESTED = frozenset(("kvlist_value", "array_value"))
NUMERIC = frozenset((None, "int_value", "double_value", "bool_value"))


def redact(text: str) -> str:
    """The text with mail addresses, keys and long numbers replaced by `[redacted]`."""
    return SECRETS.sub("[redacted]", text)


class ContentPolicy:
    """Decides whose content may stay, and removes or redacts it in OTLP messages, in place.

    Args:
        tenants: those who opted in.
    """

    def __init__(self, tenants: tuple[str, ...]) -> None:
        self._tenants = frozenset(tenants)

    def clean_span(self, span: trace_pb2.Span, tenant: str) -> dict[str, Value]:
        """Clean a span, its events, links and status; returns its attributes, read on the way.

        Args:
            tenant: of the span's resource; the span may name another.
        """
        may_stay = self._may_stay(span.attributes, tenant)
        attributes = _clean_and_read(span.attributes, may_stay)
        for event in span.events:
            _clean(event.attributes, may_stay)
        for link in span.links:
            _clean(link.attributes, may_stay)
        status = span.status
        if (message := status.message) and not STATUS_CODE.fullmatch(message):
            status.message = redact(message) if may_stay else ""
        return attributes

    def clean_resource(self, resource: Resource) -> str:
        """Clean a resource; returns the tenant that it names, empty for none."""
        tenant = _text(resource.attributes, semconv.TENANT)
        _clean(resource.attributes, False)
        return tenant

    def clean_scope(self, scope: common_pb2.InstrumentationScope) -> None:
        """Clean an instrumentation scope."""
        _clean(scope.attributes, False)

    def clean_metrics(self, request: metrics_service_pb2.ExportMetricsServiceRequest) -> None:
        """Remove content in the labels and exemplars of points; of no tenant does it stay."""
        for resource in request.resource_metrics:
            self.clean_resource(resource.resource)
            for scope in resource.scope_metrics:
                self.clean_scope(scope.scope)
                for metric in scope.metrics:
                    _clean(metric.metadata, False)
                    for point in points_of(metric):
                        _clean_point(point)

    def clean_logs(self, request: logs_service_pb2.ExportLogsServiceRequest) -> None:
        """Remove or redact content in log records.

        The body of a record is content where it is a message of a model.
        """
        for resource in request.resource_logs:
            tenant = self.clean_resource(resource.resource)
            for scope in resource.scope_logs:
                self.clean_scope(scope.scope)
                is_models = MODEL_SCOPES.search(scope.scope.name) is not None
                for record in scope.log_records:
                    may_stay = self._may_stay(record.attributes, tenant)
                    _clean(record.attributes, may_stay)
                    if is_models or _is_message(record):
                        _clean_body(record, may_stay)

    def _may_stay(self, attributes: Any, tenant: str) -> bool:
        if not self._tenants:
            return False
        return (_text(attributes, semconv.TENANT) or tenant) in self._tenants


def points_of(metric: Any) -> Any:
    """The data points of a metric, of whichever kind it is."""
    kind = metric.WhichOneof("data")
    return getattr(metric, kind).data_points if kind else ()


def _text(attributes: Any, name: str) -> str:
    """The text of an OTLP attribute; empty when it is missing."""
    return next((pair.value.string_value for pair in attributes if pair.key == name), "")


def _clean_and_read(attributes: Any, may_stay: bool) -> dict[str, Value]:
    """Clean a list of attributes, and read them in the same pass: it is the largest part of what a
    span costs. The last of a name counts.
    """
    found: dict[str, Value] = {}
    remove: list[int] = []
    for index, pair in enumerate(attributes):
        name, value = pair.key, pair.value
        which = value.WhichOneof("value")
        if which in NUMERIC:
            found[name] = getattr(value, which) if which else ""
        elif which == "string_value" and not is_content(name):
            found[name] = value.string_value
        elif _clean_value(name, value, may_stay):
            found[name] = plain_value(value)
        else:
            remove.append(index)
    for index in reversed(remove):
        del attributes[index]
    return found


def _clean(attributes: Any, may_stay: bool) -> None:
    """Clean a list of attributes."""
    remove = [
        index
        for index, pair in enumerate(attributes)
        if pair.value.WhichOneof("value") not in NUMERIC
        and not _clean_value(pair.key, pair.value, may_stay)
    ]
    for index in reversed(remove):
        del attributes[index]


def _clean_value(name: str, value: common_pb2.AnyValue, may_stay: bool) -> bool:
    """Clean a value that is no number and no boolean, which say nothing that somebody wrote; False
    where it is content that has to go.
    """
    if is_content(name):
        if may_stay:
            _redact_value(value)
        return may_stay
    if value.WhichOneof("value") in NESTED:
        _clean_nested(name, value, may_stay)
    return True


def _clean_nested(name: str, value: common_pb2.AnyValue, may_stay: bool) -> None:
    """Clean maps within a value, whose keys are names below `name`."""
    if value.WhichOneof("value") == "array_value":
        for part in value.array_value.values:
            _clean_nested(name, part, may_stay)
        return
    pairs = value.kvlist_value.values
    for index in reversed(range(len(pairs))):
        pair = pairs[index]
        inner = f"{name}.{pair.key}"
        if not (is_content(inner) or is_content(pair.key)):
            _clean_nested(inner, pair.value, may_stay)
        elif may_stay:
            _redact_value(pair.value)
        else:
            del pairs[index]


def _redact_value(value: common_pb2.AnyValue) -> None:
    for part in _leaves(value):
        if part.WhichOneof("value") == "string_value":
            part.string_value = redact(part.string_value)
        elif part.WhichOneof("value") == "bytes_value":
            part.ClearField("bytes_value")


def _leaves(value: common_pb2.AnyValue) -> Iterator[common_pb2.AnyValue]:
    match value.WhichOneof("value"):
        case "array_value":
            for part in value.array_value.values:
                yield from _leaves(part)
        case "kvlist_value":
            for pair in value.kvlist_value.values:
                yield from _leaves(pair.value)
        case _:
            yield value


def _clean_point(point: Any) -> None:
    _clean(point.attributes, False)
    for exemplar in getattr(point, "exemplars", ()):
        _clean(exemplar.filtered_attributes, False)


def _is_message(record: logs_pb2.LogRecord) -> bool:
    if record.event_name.startswith(MODEL_NAMES):
        return True
    return any(
        pair.key.startswith(MODEL_NAMES) or pair.value.string_value.startswith("gen_ai.")
        for pair in record.attributes
    )


def _clean_body(record: logs_pb2.LogRecord, may_stay: bool) -> None:
    if may_stay and record.HasField("body"):
        _redact_value(record.body)
    else:
        record.ClearField("body")
