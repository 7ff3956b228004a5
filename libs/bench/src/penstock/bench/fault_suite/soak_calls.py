"""The calls of the soak: each kind of work that the stack does, in turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import orjson
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.bench.edge.http_client import HttpClient, HttpError
from penstock.bench.edge.penstock_side import PRICES, RULES
from penstock.bench.edge.provider import CHAT, Provider
from penstock.bench.faults.whole_stack import KEY
from penstock.client import Penstock, PenstockError

TEXTS = 500
"""Different texts, so that some calls are answered from caches and others are not."""
JOB_POLL_S = 0.1
UNENDED = (router_pb2.JOB_STATE_QUEUED, router_pb2.JOB_STATE_RUNNING)
Call = Callable[[str], Awaitable[None]]


def sections(provider: Provider) -> Mapping[str, object]:
    """What the configuration has beside the key: the provider, its prices and limits."""
    server = {"name": "provider", "base_url": provider.base_url, "models": [{"name": CHAT}]}
    return {
        "prices": {"models": PRICES},
        "upstreams": {"servers": [server]},
        "limits": {"rules": list(RULES)},
    }


@dataclass(frozen=True)
class SoakCalls:
    """The kinds of calls, by gRPC and by HTTP."""

    grpc: Penstock
    http: HttpClient

    def kinds(self) -> Sequence[Call]:
        """In the order of their turns."""
        return (
            self._embed,
            self._classify,
            self._rerank,
            self._generate,
            self._stream,
            self._http_chat,
            self._http_stream,
            self._job,
            self._run,
        )

    async def make(self, count: int) -> bool:
        """Make the call with this number; returns whether it was answered."""
        kinds = self.kinds()
        with contextlib.suppress(PenstockError, HttpError):
            await kinds[count % len(kinds)](f"text {count * 7 % TEXTS}")
            return True
        return False

    async def _embed(self, text: str) -> None:
        await self.grpc.embed([text])

    async def _classify(self, text: str) -> None:
        await self.grpc.classify([text], {"a number": ["text 1"], "a name": ["Ada"]})

    async def _rerank(self, text: str) -> None:
        await self.grpc.rerank(text, ["one document", "another document"])

    async def _generate(self, text: str) -> None:
        await self.grpc.generate(text, model=CHAT)

    async def _stream(self, text: str) -> None:
        async for _ in self.grpc.generate_stream(text, model=CHAT):
            pass

    async def _http_chat(self, text: str) -> None:
        await self._post(text, stream=False)

    async def _http_stream(self, text: str) -> None:
        await self._post(text, stream=True)

    async def _post(self, text: str, *, stream: bool) -> None:
        body = {
            "model": CHAT,
            "messages": [{"role": "user", "content": text}],
            "stream": stream,
        }
        await self.http.send(self.http.post("/v1/chat/completions", orjson.dumps(body)))

    async def _job(self, text: str) -> None:
        task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text]))
        submitted = await self.grpc.call("SubmitJob", router_pb2.SubmitJobRequest(task=task))
        job: router_pb2.Job = submitted.job
        while job.state in UNENDED:
            await asyncio.sleep(JOB_POLL_S)
            job = (await self.grpc.call("GetJob", router_pb2.GetJobRequest(id=job.id))).job

    async def _run(self, text: str) -> None:
        run = await self.grpc.start_run()
        await self.grpc.embed([text], run=run)
        await self.grpc.end_run(run)


def http_client(address: str) -> HttpClient:
    """A client of the stack's HTTP edge with the soak's key."""
    return HttpClient(address, {"authorization": f"Bearer {KEY}"})
