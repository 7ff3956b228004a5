"""The protocol over gRPC: `inference.GRPCInferenceService`, as Triton and KServe serve it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from penstock.api.kserve import inference_pb2 as kserve
from penstock.kserve.inference import Inference
from penstock.kserve.ordered import in_order
from penstock.kserve.responses import stream_failure, stream_response
from penstock.rpc.auth import CallerMetadata
from penstock.rpc.endpoint import received_metadata
from penstock.rpc.errors import to_fault

SERVICE = kserve.DESCRIPTOR.services_by_name["GRPCInferenceService"]
NAME: str = SERVICE.full_name
STREAM, INFER = "ModelStreamInfer", "ModelInfer"
STREAM_WINDOW = 16
"""Requests of one stream that are computed side by side."""
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def add_to(server: grpc.aio.Server, inference: Inference) -> None:
    """Register the service on a server that is not yet started."""
    handlers: dict[str, grpc.RpcMethodHandler] = {}
    for method in SERVICE.methods:
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        if method.name == STREAM:
            handlers[STREAM] = grpc.stream_stream_rpc_method_handler(
                _stream(inference), request.FromString, response.SerializeToString
            )
            continue
        handlers[method.name] = grpc.unary_unary_rpc_method_handler(
            _unary(inference, method.name), request.FromString, response.SerializeToString
        )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(NAME, handlers)])


def _unary(inference: Inference, name: str) -> Callable[[Any, Context], Any]:
    method = getattr(inference, name)

    async def serve(request: Message, context: Context) -> Message:
        try:
            metadata = received_metadata(context)
            with inference.opened(name, metadata):
                call = await inference.authenticated(name, metadata)
                response: Message = await method(
                    request, inference.timed(call, context.time_remaining())
                )
        except asyncio.CancelledError:
            raise
        except Exception as error:
            await _refuse(context, error)
            raise
        if name == INFER:
            context.set_trailing_metadata(tuple(inference.trailer()))
        return response

    return serve


def _stream(inference: Inference) -> Callable[[Any, Context], Any]:
    """Answer in the order of the requests, which are computed side by side; a failure takes its
    request's place and the stream goes on.
    """

    async def serve(
        requests: AsyncIterator[kserve.ModelInferRequest], context: Context
    ) -> AsyncIterator[kserve.ModelStreamInferResponse]:
        try:
            metadata = received_metadata(context)
            with inference.opened(STREAM, metadata):
                await inference.authenticated(STREAM, metadata)
                answer = _answering(inference, metadata, context)
                async with aclosing(in_order(requests, answer, STREAM_WINDOW)) as answers:
                    async for response in answers:
                        yield response
        except Exception as error:
            await _refuse(context, error)
            raise

    return serve


def _answering(
    inference: Inference, metadata: CallerMetadata, context: Context
) -> Callable[[kserve.ModelInferRequest], Awaitable[kserve.ModelStreamInferResponse]]:
    """Answers a request of a stream. Its caller is authenticated again: a key may have been revoked
    since the stream was opened.
    """

    async def answer(request: kserve.ModelInferRequest) -> kserve.ModelStreamInferResponse:
        try:
            caller = await inference.authenticated(STREAM, metadata)
            call = inference.timed(caller, context.time_remaining())
            return stream_response(await inference.ModelInfer(request, call))
        except Exception as error:
            return stream_failure(request, error)

    return answer


async def _refuse(context: Context, error: Exception) -> None:
    fault = to_fault(error)
    await context.abort(fault.code, fault.message)
