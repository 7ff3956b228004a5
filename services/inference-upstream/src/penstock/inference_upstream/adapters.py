"""How each kind of task is served through the OpenAI API: the request, the path, the result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols import openai_chat, openai_embeddings, rerank
from penstock.inference_upstream.settings import UpstreamModel
from penstock.inference_upstream.transport.client import Client
from penstock.tasks.kinds import EMBED, GENERATE, RERANK

Adapter = Callable[[Client, UpstreamModel, pb.Task], Awaitable[pb.TaskResult]]


async def _embed(client: Client, model: UpstreamModel, task: pb.Task) -> pb.TaskResult:
    body = openai_embeddings.embeddings_request(task.embed, model.name_at_upstream)
    return openai_embeddings.parse_embeddings(await client.post("/embeddings", body), task.embed)


async def _generate(client: Client, model: UpstreamModel, task: pb.Task) -> pb.TaskResult:
    body = chat_request(client, model, task.generate, stream=False)
    return openai_chat.parse_chat(await client.post("/chat/completions", body), task.generate)


async def _rerank(client: Client, model: UpstreamModel, task: pb.Task) -> pb.TaskResult:
    body = rerank.rerank_request(task.rerank, model.name_at_upstream)
    return rerank.parse_rerank(await client.post("/rerank", body), task)


def chat_request(
    client: Client, model: UpstreamModel, task: pb.GenerateTask, *, stream: bool
) -> dict[str, object]:
    """The body of a chat completion, whole or streamed, as this upstream takes it."""
    resumes = client.upstream.resumes
    return openai_chat.chat_request(task, model.name_at_upstream, stream=stream, resumes=resumes)


ADAPTERS: Mapping[str, Adapter] = {
    EMBED.name: _embed,
    GENERATE.name: _generate,
    RERANK.name: _rerank,
}
