"""The protocol over gRPC: `inference.GRPCInferenceService`, as Triton and KServe serve it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from penstock.api.kserve import inference_pb2 as kserve
from penstock.kserve.inference import Inference
from penstock.kserve.ordered import in_order
from penstock.kserve.responses import stream_failure, stream_response
from penstock.rpc.auth import Metadata
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, to_fault

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
            call = await inference.authenticated(name, _metadata(context))
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
        metadata = _metadata(context)
        try:
            await inference.authenticated(STREAM, metadata)
        except Exception as error:
            await _refuse(context, error)
            raise

        async def answer(request: kserve.ModelInferRequest) -> kserve.ModelStreamInferResponse:
            try:  # again: a key may have been revoked since the stream was opened
                caller = await inference.authenticated(STREAM, metadata)
            except Fault as fault:
                return stream_failure(request, fault)
            return await _streamed(
                inference, request, inference.timed(caller, context.time_remaining())
            )

        async with aclosing(in_order(requests, answer, STREAM_WINDOW)) as answers:
            async for response in answers:
                yield response

    return serve


async def _streamed(
    inference: Inference, request: kserve.ModelInferRequest, call: Call
) -> kserve.ModelStreamInferResponse:
    try:
        return stream_response(await inference.ModelInfer(request, call))
    except Exception as error:
        return stream_failure(request, error)


def _metadata(context: Context) -> Metadata:
    return dict(context.invocation_metadata() or ())


async def _refuse(context: Context, error: Exception) -> None:
    fault = to_fault(error)
    await context.abort(fault.code, fault.message)
