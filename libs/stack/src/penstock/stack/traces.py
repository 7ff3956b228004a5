"""Reading a trace back from a stack's telemetry service."""

from __future__ import annotations

import asyncio
import time

import grpc
from penstock.api.telemetry.v1 import telemetry_pb2, telemetry_pb2_grpc
from penstock.rpc.auth import TOKEN_KEY
from penstock.rpc.peers.stream import open_channel
from penstock.stack.stack import Stack

TRACE_WAIT_S = 10.0
POLL_S = 0.2
GET_TIMEOUT_S = 5.0


def services_in(trace: telemetry_pb2.GetTraceResponse) -> set[str]:
    """Names of the services that have spans in a trace."""
    return {span.service for span in trace.spans}


async def fetch_trace(
    stack: Stack, trace_id: str, min_services: int = 3
) -> telemetry_pb2.GetTraceResponse:
    """The trace of a call, once its first span is there and it has spans of `min_services`
    services. The call must begin its trace: of one that continues its caller's, the first span
    never comes.

    Spans arrive some time after the answer, those of one service in several exports. After ten
    seconds the trace is returned as it is, empty where telemetry does not know it.
    """
    metadata = ((TOKEN_KEY, stack.internal_token),)
    request = telemetry_pb2.GetTraceRequest(trace_id=trace_id)
    trace = telemetry_pb2.GetTraceResponse()
    end_s = time.monotonic() + TRACE_WAIT_S
    async with open_channel(stack.addresses["telemetry"], stack.tls) as channel:
        telemetry = telemetry_pb2_grpc.TelemetryServiceStub(channel)
        while True:
            try:
                trace = await telemetry.GetTrace(request, metadata=metadata, timeout=GET_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
            is_whole = _has_root(trace) and len(services_in(trace)) >= min_services
            if is_whole or time.monotonic() >= end_s:
                return trace
            await asyncio.sleep(POLL_S)


def _has_root(trace: telemetry_pb2.GetTraceResponse) -> bool:
    return any(not span.parent_id for span in trace.spans)
