"""The other side of `hop` and `overhead`: two echo servers in a process of their own.

One is a bare grpc.aio server, the other has the same servicer behind an Endpoint of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
from penstock.api.inference.v1 import inference_pb2, inference_pb2_grpc
from penstock.hosting.grpc_server import GrpcServer
from penstock.rpc.auth import services_only
from penstock.rpc.call import Call
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.errors import OK
from penstock.service.program import loop_factory
from penstock.service.service_tokens import SharedToken
from penstock.service.settings import ServiceSettings
from penstock.stack.plan import SINGLE_THREADED_LIBRARIES
from penstock.stack.process import GRPC_DEFAULTS
from penstock.testkit.instance import INFERENCE, EmptyInstance

TOKEN = "token-of-the-hop-benchmark"
SLOW = "slow"
"""The model whose answers take SLOW_S."""
SLOW_S = 0.5
ANSWER = inference_pb2.ComputeResponse(
    result=inference_pb2.TaskResult(revision="echo", compute_ms=0.1)
)


async def _answer(request: inference_pb2.ComputeRequest) -> inference_pb2.ComputeResponse:
    if request.model == SLOW:
        await asyncio.sleep(SLOW_S)
    return ANSWER


def _result(task: inference_pb2.Task) -> inference_pb2.TaskResult:
    """The echo's answer; documents keep their order, which a caller has to be told."""
    documents = len(task.rerank.documents)
    if not documents:
        return ANSWER.result
    result = inference_pb2.TaskResult(revision="echo", compute_ms=0.1)
    for index in range(documents):
        result.rerank.ranking.add(index=index, score=1 - index / documents)
    return result


class _BareServicer(inference_pb2_grpc.InferenceServiceServicer):
    """What one would write with grpcio alone."""

    async def Compute(
        self, request: inference_pb2.ComputeRequest, context: object
    ) -> inference_pb2.ComputeResponse:
        return await _answer(request)


class _EchoInstance(EmptyInstance):
    """The same answer for an Endpoint; documents are ranked too."""

    async def Compute(
        self, request: inference_pb2.ComputeRequest, call: Call
    ) -> inference_pb2.ComputeResponse:
        if request.task.rerank.documents:
            return inference_pb2.ComputeResponse(result=_result(request.task))
        return await _answer(request)

    async def ComputeBatch(
        self, request: inference_pb2.ComputeBatchRequest, call: Call
    ) -> AsyncIterator[inference_pb2.ComputeBatchResponse]:
        results = [
            inference_pb2.MemberResult(index=index, status=OK, result=_result(member.task))
            for index, member in enumerate(request.members)
        ]
        yield inference_pb2.ComputeBatchResponse(results=results)


@dataclass(frozen=True)
class EchoAddresses:
    """`host:port` of the bare server and of the one with our Endpoint, and their process."""

    bare: str
    endpoint: str
    pid: int


@contextlib.contextmanager
def echo_process(tls_dir: Path | None = None) -> Iterator[EchoAddresses]:
    """Run both servers in a child process, which ends when its standard input is closed. What
    services are told of gRPC and threads, it is told too.

    Args:
        tls_dir: certificate of the one with our Endpoint; None for plaintext.
    """
    command = [sys.executable, "-m", "penstock.bench.harness.echo"]
    own = {"PENSTOCK_TLS_DIR": str(tls_dir)} if tls_dir is not None else {}
    environment = {**GRPC_DEFAULTS, **SINGLE_THREADED_LIBRARIES, **os.environ, **own}
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout is not None and child.stdin is not None
    try:
        bare, endpoint = child.stdout.readline().split()
        yield EchoAddresses(bare, endpoint, child.pid)
    finally:
        child.stdin.close()
        child.stdout.close()
        child.wait(timeout=10)


async def _serve() -> None:
    bare = grpc.aio.server()
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(_BareServicer(), bare)
    port = bare.add_insecure_port("127.0.0.1:0")
    await bare.start()
    endpoint = Endpoint(INFERENCE, _EchoInstance(), services_only(INFERENCE, SharedToken(TOKEN)))
    server = GrpcServer("echo", ServiceSettings(listen="127.0.0.1:0"), [endpoint])
    await server.start()
    print(f"127.0.0.1:{port} {server.address}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)
    await bare.stop(None)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve())
