"""The client for code without asyncio: `Penstock` on an event loop in a background thread."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from google.protobuf.message import Message
from penstock.api.common.v1 import run_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.api.router.v1 import runs_pb2
from penstock.client.background import Background
from penstock.client.errors import NotOpen, not_open
from penstock.client.penstock import Penstock
from penstock.client.run import DEFAULT_TIMEOUT_S, Priority, Run, new_run

T = TypeVar("T")


class PenstockSync:
    """A connection to a router, for threads, scripts and notebooks; threads may share one.

    Arguments and methods are those of Penstock.

    Raises:
        BadRequest: address, key or retries cannot be used.
        NotOpen: this process was forked after its parent had opened a client.
    """

    def __init__(
        self,
        address: str,
        key: str,
        *,
        retries: int = 3,
        plain: bool = False,
        ca: str | Path = "",
        cert: str | Path = "",
        key_file: str | Path = "",
    ) -> None:
        self._client = Penstock(
            address, key, retries=retries, plain=plain, ca=ca, cert=cert, key_file=key_file
        )
        self._background = Background.acquire()
        self._closed = False

    @staticmethod
    def run(
        step: str = "", priority: Priority = "normal", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Run:
        """Begin an agent run with an id of its own."""
        return new_run(step, priority, timeout_s)

    def embed(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        run: Run | None = None,
        options: pb.CallOptions | None = None,
    ) -> pb.EmbedResponse:
        """See Penstock.embed."""
        return self._wait(self._client.embed(texts, model=model, run=run, options=options))

    def classify(
        self,
        texts: Sequence[str],
        examples: Mapping[str, Sequence[str]] | None = None,
        *,
        model: str = "",
        top_k: int = 1,
        run: Run | None = None,
        options: pb.CallOptions | None = None,
    ) -> pb.ClassifyResponse:
        """See Penstock.classify."""
        return self._wait(
            self._client.classify(
                texts, examples, model=model, top_k=top_k, run=run, options=options
            )
        )

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str = "",
        top_n: int = 0,
        run: Run | None = None,
        options: pb.CallOptions | None = None,
    ) -> pb.RerankResponse:
        """See Penstock.rerank."""
        return self._wait(
            self._client.rerank(
                query, documents, model=model, top_n=top_n, run=run, options=options
            )
        )

    def generate(
        self,
        task: inference_pb2.GenerateTask | str,
        *,
        model: str = "",
        run: Run | None = None,
        options: pb.CallOptions | None = None,
    ) -> pb.GenerateResponse:
        """See Penstock.generate."""
        return self._wait(self._client.generate(task, model=model, run=run, options=options))

    def generate_stream(
        self,
        task: inference_pb2.GenerateTask | str,
        *,
        model: str = "",
        run: Run | None = None,
        options: pb.CallOptions | None = None,
    ) -> Iterator[pb.GenerateStreamResponse]:
        """See Penstock.generate_stream."""
        parts: Any = self._client.generate_stream(task, model=model, run=run, options=options)
        try:
            while (part := self._wait(_next_part(parts))) is not None:
                yield part
        finally:
            # Not awaited: an abandoned iterator is closed by the garbage collector, perhaps at the
            # end of the program.
            with contextlib.suppress(RuntimeError, NotOpen):
                self._background.start(parts.aclose())

    def infer(
        self,
        task: inference_pb2.InferTask,
        *,
        model: str = "",
        run: Run | None = None,
        options: pb.CallOptions | None = None,
    ) -> pb.InferResponse:
        """See Penstock.infer."""
        return self._wait(self._client.infer(task, model=model, run=run, options=options))

    def list_models(self) -> pb.ListModelsResponse:
        """See Penstock.list_models."""
        return self._wait(self._client.list_models())

    def start_run(
        self,
        limits: run_pb2.RunLimits | None = None,
        *,
        parent: Run | None = None,
        name: str = "",
        reserve: run_pb2.RunAmount | None = None,
    ) -> Run:
        """See Penstock.start_run."""
        started = self._client.start_run(limits, parent=parent, name=name, reserve=reserve)
        return self._wait(started)

    def get_run(self, run: Run) -> runs_pb2.GetRunResponse:
        """See Penstock.get_run."""
        return self._wait(self._client.get_run(run))

    def raise_run(self, run: Run, limits: run_pb2.RunLimits | None = None) -> None:
        """See Penstock.raise_run."""
        self._wait(self._client.raise_run(run, limits))

    def end_run(self, run: Run) -> None:
        """See Penstock.end_run."""
        self._wait(self._client.end_run(run))

    def cancel_run(self, run: Run) -> int:
        """See Penstock.cancel_run."""
        return self._wait(self._client.cancel_run(run))

    def call(self, method: str, request: Message, run: Run | None = None) -> Any:
        """See Penstock.call."""
        return self._wait(self._client.call(method, request, run))

    def close(self) -> None:
        """Close the connection; the last client to be closed ends the thread.

        Closing again does nothing.
        """
        if self._closed:
            return
        self._closed = True
        self._background.start(self._client.close()).result()
        self._background.release()

    def __enter__(self) -> PenstockSync:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for a result; leaving early, for instance by Ctrl-C, cancels the call."""
        future = self._background.start(coroutine)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise not_open("the client was closed while the call was in flight") from None
        finally:
            future.cancel()


async def _next_part(parts: Any) -> pb.GenerateStreamResponse | None:
    part: pb.GenerateStreamResponse | None = await anext(parts, None)
    return part
