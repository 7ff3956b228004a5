"""What people wrote never stays in telemetry unless their tenant asked for it, and then only redacted. Plain."""

from __future__ import annotations

import re

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from penstock.core import semantics as names

MARKS = tuple(name.encode() for name in names.CONTENT)
SECRETS = re.compile(
    r"[\w.+-]+@[\w-]+\.[\w.-]+"  # mail addresses
    r"|\b(?:sk|pk|ghp|xox[abp]|AKIA|ps)[-_][\w-]{8,}"  # keys by their usual beginnings
    r"|\bBearer\s+\S+"
    r"|\b(?:\d[ -]?){13,19}\b"  # card and account numbers
)


def redact(text: str) -> str:
    """The text without mail addresses, keys and long numbers."""
    return SECRETS.sub("[redacted]", text)


class Content:
    """Which tenants record content."""

    def __init__(self, tenants: tuple[str, ...]) -> None:
        self._tenants = frozenset(tenants)

    def concerns(self, payload: bytes) -> bool:
        """Whether an export may hold content at all: a look at its bytes."""
        return any(mark in payload for mark in MARKS)

    def clean_traces(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        """Remove content from spans of tenants that did not ask for it, and redact it in the others."""
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    tenant = next((a.value.string_value for a in span.attributes if a.key == names.TENANT), "")
                    kept = tenant in self._tenants
                    for index in reversed(range(len(span.attributes))):
                        if span.attributes[index].key not in names.CONTENT:
                            continue
                        value = span.attributes[index].value
                        if kept and value.WhichOneof("value") == "string_value":
                            value.string_value = redact(value.string_value)
                        else:
                            del span.attributes[index]
