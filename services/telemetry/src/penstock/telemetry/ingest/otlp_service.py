"""OTLP over gRPC: TraceService, MetricsService and LogsService of the OpenTelemetry collector
protocol, for any exporter.

Requests arrive as bytes, since gRPC would refuse the whole of an export that can be read in part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from penstock.rpc.errors import internal, to_fault, to_rpc_status
from penstock.telemetry.ingest.exports import ExportReceiver, Signal, signals
from penstock.telemetry.ingest.reading import read_protobuf

SERVICE_NAMES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (trace_service_pb2, "TraceService"),
        (metrics_service_pb2, "MetricsService"),
        (logs_service_pb2, "LogsService"),
    )
)


class OtlpGrpc:
    """The three services of one receiver."""

    def __init__(self, receiver: ExportReceiver) -> None:
        self._signals = signals(receiver)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Add the services to a server."""
        for signal in self._signals:
            method = grpc.unary_unary_rpc_method_handler(_serve(signal), None, _serialize)
            handler = grpc.method_handlers_generic_handler(signal.service, {"Export": method})
            server.add_generic_rpc_handlers((handler,))


def _serve(signal: Signal) -> Callable[[bytes, Any], Awaitable[Message]]:
    """A gRPC handler that turns exceptions into statuses."""

    async def serve(payload: bytes, context: Any) -> Message:
        try:
            return await signal.take(read_protobuf(signal.request, payload))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            status = rpc_status.to_status(to_rpc_status(to_fault(error)))
            await context.abort(status.code, status.details, status.trailing_metadata)
            raise internal("not reached") from None

    return serve


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
