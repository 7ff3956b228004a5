"""Content under the names that instrumentations give it, wherever OTLP has attributes: what of it
can still be found in anything that telemetry keeps, answers or passes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2
from penstock.api.telemetry.v1 import telemetry_pb2 as pb
from penstock.bench.standards.service import EXPORT_METHODS, RunningTelemetry, running_telemetry
from penstock.rpc.call import Call

FAMILIES: tuple[tuple[str, ...], ...] = (
    ("gen_ai.prompt", "gen_ai.prompt.0.content", "gen_ai.prompt.1.role.note"),
    ("gen_ai.completion", "gen_ai.completion.0.tool_calls.0.arguments"),
    ("gen_ai.input.messages",),
    ("gen_ai.output.messages",),
    ("gen_ai.system_instructions",),
    ("gen_ai.tool.definitions", "gen_ai.tool.description"),
    ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result"),
    ("gen_ai.retrieval.query.text", "gen_ai.retrieval.documents"),
    ("gen_ai.evaluation.explanation",),
    ("gen_ai.content.prompt", "gen_ai.content.completion", "gen_ai.event.content"),
    ("gen_ai.user.message", "gen_ai.choice", "gen_ai.assistant.message"),
    ("input.value", "output.value"),
    ("llm.input_messages.0.message.content", "llm.output_messages.0.message.content"),
    ("llm.prompts", "llm.completions.0"),
    ("llm.prompt_template.template", "llm.prompt_template.variables"),
    ("llm.tools.0.tool.json_schema", "llm.function_call", "llm.invocation_parameters"),
    ("llm.request.functions.0.description",),
    ("retrieval.documents.0.document.content", "document.metadata.note"),
    ("reranker.query", "reranker.input_documents.0.document.content"),
    ("embedding.text", "embedding.embeddings.0.embedding.text"),
    ("traceloop.entity.input", "traceloop.entity.output"),
    ("ai.prompt", "ai.prompt.messages", "ai.prompt.tools"),
    ("ai.response.text", "ai.response.object", "ai.response.reasoning", "ai.response.toolCalls"),
    ("ai.toolCall.args", "ai.toolCall.result"),
    ("ai.value", "ai.values", "ai.embedding"),
    ("langfuse.observation.input", "langfuse.trace.output", "langfuse.observation.prompt.text"),
    ("mlflow.spanInputs", "mlflow.spanOutputs", "mlflow.chat.messages"),
    ("logfire.msg", "all_messages_events", "request_data", "response_data", "final_result"),
    ("pydantic_ai.all_messages", "model_request_parameters", "tool_arguments", "tool_response"),
    ("gcp.vertex.agent.llm_request", "gcp.vertex.agent.tool_call_args"),
    ("haystack.component.input", "haystack.component.output"),
    ("crewai.task.description", "crewai.agent.goal"),
    ("smolagents.task", "smolagents.tool.inputs"),
    ("braintrust.input_json", "braintrust.output"),
    ("mcp.tool.arguments", "mcp.tool.result", "mcp.prompt.content"),
    ("db.query.text", "db.statement", "graphql.document", "db.operation.parameter.name"),
    ("http.request.body", "http.response.body", "messaging.message.body"),
    ("exception.message", "exception.stacktrace"),
    ("image.url", "audio.transcript", "video.data"),
    ("agent.memory.entry", "rag.context", "user.question", "assistant.thought"),
)
"""Names by family; the first of each is the one that a family is called by."""

CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
TRACE_ID = "24" * 16
PLACES = ("span", "event", "link", "resource", "scope", "nested", "list", "bytes", "log", "metric")


@dataclass(frozen=True)
class Content:
    """Text that must not stay, under a name and in a place."""

    family: str
    name: str
    place: str

    @property
    def text(self) -> str:
        """What can be looked for."""
        return f"secret-{self.place}-{self.name}-secret"


def contents() -> list[Content]:
    """Every name of every family in every place."""
    return [
        Content(names[0], name, place) for names in FAMILIES for name in names for place in PLACES
    ]


def _pairs(content: Sequence[Content], place: str) -> Iterator[KeyValue]:
    for one in content:
        if one.place != place:
            continue
        pair = KeyValue(key=one.name)
        match place:
            case "nested":
                pair.key = "app.event"
                inner = pair.value.kvlist_value.values.add(key=one.name)
                inner.value.string_value = one.text
            case "list":
                pair.value.array_value.values.add().string_value = one.text
            case "bytes":
                pair.value.bytes_value = one.text.encode()
            case _:
                pair.value.string_value = one.text
        yield pair


def trace_export(content: Sequence[Content]) -> trace_service_pb2.ExportTraceServiceRequest:
    """A span with all of it, and a status message that quotes some."""
    request = trace_service_pb2.ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "agent"
    resource.resource.attributes.extend(_pairs(content, "resource"))
    scope = resource.scope_spans.add()
    scope.scope.attributes.extend(_pairs(content, "scope"))
    span = scope.spans.add(
        trace_id=bytes.fromhex(TRACE_ID),
        span_id=b"12345678",
        name="chat",
        start_time_unix_nano=10**18,
        end_time_unix_nano=10**18 + 1,
    )
    for place in ("span", "nested", "list", "bytes"):
        span.attributes.extend(_pairs(content, place))
    span.events.add(name="gen_ai.content.prompt").attributes.extend(_pairs(content, "event"))
    span.links.add(trace_id=b"1" * 16, span_id=b"1" * 8).attributes.extend(_pairs(content, "link"))
    span.status.code = span.status.STATUS_CODE_ERROR
    span.status.message = f"cannot answer: {content[0].text}"
    return request


def metric_export(content: Sequence[Content]) -> metrics_service_pb2.ExportMetricsServiceRequest:
    """A counter with all of it as labels and in an exemplar."""
    request = metrics_service_pb2.ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "agent"
    resource.resource.attributes.extend(_pairs(content, "resource"))
    metric = resource.scope_metrics.add().metrics.add(name="agent.calls")
    metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, CUMULATIVE
    point = metric.sum.data_points.add(time_unix_nano=10**18, as_int=1)
    point.attributes.extend(_pairs(content, "metric"))
    point.exemplars.add(as_int=1).filtered_attributes.extend(_pairs(content, "metric"))
    return request


def log_export(content: Sequence[Content]) -> logs_service_pb2.ExportLogsServiceRequest:
    """A model's message with all of it, as attributes and as body."""
    request = logs_service_pb2.ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    record.event_name = "gen_ai.client.inference.operation.details"
    record.attributes.extend(_pairs(content, "log"))
    record.body.kvlist_value.values.extend(_pairs(content, "log"))
    return request


async def leaked_families(folder: Path) -> list[str]:
    """The families of which some text was found after an export of everything."""
    content = contents()
    async with running_telemetry(folder, forward_endpoint="127.0.0.1:1") as telemetry:
        await _export(telemetry, content)
        found = await _all_that_is_told(telemetry, folder)
    return sorted({one.family for one in content if one.text.encode() in found})


async def _export(telemetry: RunningTelemetry, content: Sequence[Content]) -> None:
    for kind, request in (
        ("traces", trace_export(content)),
        ("metrics", metric_export(content)),
        ("logs", log_export(content)),
    ):
        payload = request.SerializeToString()
        await telemetry.channel.unary_unary(EXPORT_METHODS[kind])(payload)
        headers = {"content-type": "application/x-protobuf"}
        url = f"http://{telemetry.http}/v1/{kind}"
        response = await telemetry.client.post(url, content=payload, headers=headers)
        response.raise_for_status()


async def _all_that_is_told(telemetry: RunningTelemetry, folder: Path) -> bytes:
    """Every answer that could hold content, the scrape, and what waits to be forwarded."""
    ask = telemetry.peer.call
    answers: list[Any] = [
        await ask("GetTrace", pb.GetTraceRequest(trace_id=TRACE_ID), Call()),
        await ask("SearchTraces", pb.SearchTracesRequest(), Call()),
        await ask("GetMetrics", pb.GetMetricsRequest(name="agent.calls"), Call()),
    ]
    assert answers[0].spans and answers[2].series, "the export was not taken"
    page = await telemetry.client.get(f"http://{telemetry.prometheus}/metrics")
    queued = [path.read_bytes() for path in sorted((folder / "forward").iterdir())]
    assert queued, "nothing waits to be forwarded"
    return b"".join([page.content, *(one.SerializeToString() for one in answers), *queued])
