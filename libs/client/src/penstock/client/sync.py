"""The same client for code without asyncio: a loop in a thread of its own runs `Penstock`; methods wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.client.penstock import Penstock, Priority, Run

T = TypeVar("T")


class PenstockSync:
    """A connection to a router, for threads. One grpc event loop for each process: make one and share it."""

    def __init__(self, address: str, key: str, *, retries: int = 2, plain: bool = False) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="penstock-client", daemon=True)
        self._thread.start()
        self._client = self._wait(self._open(address, key, retries, plain))

    @staticmethod
    async def _open(address: str, key: str, retries: int, plain: bool) -> Penstock:
        return Penstock(address, key, retries=retries, plain=plain)

    @staticmethod
    def run(step: str = "", priority: Priority = "normal", timeout_s: float = 30.0) -> Run:
        """Begin an agent run with an id of its own."""
        return Penstock.run(step, priority, timeout_s)

    def embed(self, texts: Sequence[str], *, model: str = "", run: Run | None = None) -> pb.EmbedResponse:
        """See Penstock.embed."""
        return self._wait(self._client.embed(texts, model=model, run=run))

    def classify(
        self,
        texts: Sequence[str],
        examples: Mapping[str, Sequence[str]] | None = None,
        *,
        top_k: int = 1,
        run: Run | None = None,
    ) -> pb.ClassifyResponse:
        """See Penstock.classify."""
        return self._wait(self._client.classify(texts, examples, top_k=top_k, run=run))

    def generate(
        self, task: inference_pb2.GenerateTask, *, model: str = "", run: Run | None = None
    ) -> pb.GenerateResponse:
        """See Penstock.generate."""
        return self._wait(self._client.generate(task, model=model, run=run))

    def generate_stream(
        self, task: inference_pb2.GenerateTask, *, model: str = "", run: Run | None = None
    ) -> Iterator[pb.GenerateStreamResponse]:
        """See Penstock.generate_stream."""
        parts = self._client.generate_stream(task, model=model, run=run)
        try:
            while (part := self._wait(_next(parts))) is not None:
                yield part
        finally:
            self._wait(parts.aclose())  # type: ignore[attr-defined]

    def list_models(self) -> pb.ListModelsResponse:
        """See Penstock.list_models."""
        return self._wait(self._client.list_models())

    def close(self) -> None:
        """Close the connection and end the thread."""
        self._wait(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> PenstockSync:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _next(parts: Any) -> pb.GenerateStreamResponse | None:
    part: pb.GenerateStreamResponse | None = await anext(parts, None)
    return part
