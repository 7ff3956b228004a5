"""A KServe v2 server without a model, as a process: what the RPC and the client alone cost.

Arguments: port, width of the answer.
"""

from __future__ import annotations

import asyncio
import sys

import grpc
from penstock.api.kserve import inference_pb2 as kserve
from penstock.api.kserve import inference_pb2_grpc as kserve_grpc
from penstock.service.program import loop_factory


class EchoServicer(kserve_grpc.GRPCInferenceServiceServicer):
    """Is ready at once and gives every request the same answer, which is made once."""

    def __init__(self, width: int) -> None:
        self._answer = kserve.ModelInferResponse(
            model_name="model", raw_output_contents=[bytes(4 * width)]
        )
        self._answer.outputs.add(name="sentence_embedding", datatype="FP32", shape=[1, width])

    async def ModelReady(
        self, request: kserve.ModelReadyRequest, context: object
    ) -> kserve.ModelReadyResponse:
        return kserve.ModelReadyResponse(ready=True)

    async def ModelInfer(
        self, request: kserve.ModelInferRequest, context: object
    ) -> kserve.ModelInferResponse:
        return self._answer


async def _serve(port: int, width: int) -> None:
    server = grpc.aio.server()
    kserve_grpc.add_GRPCInferenceServiceServicer_to_server(EchoServicer(width), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
