"""How each kind of task is served by an upstream: the request, the path, the result."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols import openai_embeddings, rerank
from penstock.inference_upstream.protocols.anthropic_messages.wire import AnthropicMessages
from penstock.inference_upstream.protocols.joining import joined
from penstock.inference_upstream.protocols.openai_chat.wire import OpenAiChat
from penstock.inference_upstream.protocols.passed_bytes import PassedBytes
from penstock.inference_upstream.protocols.passing_on import AsSent, passed_on
from penstock.inference_upstream.protocols.provider_words import told_as_it_came
from penstock.inference_upstream.protocols.request_fields import check_modalities
from penstock.inference_upstream.protocols.wire import Target, Wire
from penstock.inference_upstream.providers import WireName
from penstock.inference_upstream.settings import Upstream, UpstreamModel
from penstock.inference_upstream.transport.client import (
    Body,
    Client,
    Content,
    read_to_end,
    read_whole,
)
from penstock.rpc.errors import Fault
from penstock.tasks.answers import whole_chunk
from penstock.tasks.kinds import EMBED, GENERATE, RERANK
from penstock.tasks.wire_request import MAX_WIRE_BODY_BYTES

Adapter = Callable[[Client, UpstreamModel, pb.Task], Awaitable[pb.TaskResult]]
WIRES: Mapping[WireName, Wire] = {
    "openai-chat": OpenAiChat(),
    "anthropic-messages": AnthropicMessages(),
}


def wire_of(upstream: Upstream) -> Wire:
    """The protocol of an upstream."""
    return WIRES[upstream.wire or upstream.known_provider.wire]


def target_of(upstream: Upstream, model: UpstreamModel) -> Target:
    """A model, as its protocol needs to know it."""
    return Target(
        model.name_at_upstream,
        upstream.switches_of(model),
        frozenset(model.inputs),
        model.max_output_tokens,
        upstream.resumes,
    )


async def _embed(client: Client, model: UpstreamModel, task: pb.Task) -> pb.TaskResult:
    """The vectors of all texts, asked for in as many requests as the upstream needs."""
    most = client.upstream.max_embed_texts_of(model)
    pieces = EMBED.split(task, most) if most else [task]
    path = client.upstream.paths.get("embed", openai_embeddings.PATH)
    answers = []
    for piece in pieces:
        body = openai_embeddings.embeddings_request(
            piece.embed, model.name_at_upstream, client.upstream.switches_of(model)
        )
        answer = await client.post(path, body, model)
        answers.append(openai_embeddings.parse_embeddings(answer, piece.embed))
    return answers[0] if len(answers) == 1 else openai_embeddings.joined(task, answers)


async def _generate(client: Client, model: UpstreamModel, task: pb.Task) -> pb.TaskResult:
    wire, target = wire_of(client.upstream), target_of(client.upstream, model)
    body = body_of(wire, target, task.generate, stream=False)
    path = client.upstream.paths.get("generate", wire.path)
    answer = await client.post(path, body, model)
    result = wire.parse(answer, task.generate, target)
    if isinstance(body, AsSent) and len(answer) <= MAX_WIRE_BODY_BYTES:
        result.generate.wire_body = answer
    return result


def body_of(wire: Wire, target: Target, task: pb.GenerateTask, *, stream: bool) -> Content:
    """What is sent of a conversation: its caller's own bytes where they say it, else a translation.

    Raises:
        Fault: INVALID_ARGUMENT as `Wire.request`.
    """
    if task.HasField("wire_request"):
        way = passed_on(task, wire.number, target, stream=stream)
        if isinstance(way, AsSent):
            check_modalities(task, target)
            return way
    return wire.request(task, target, stream=stream)


async def _rerank(client: Client, model: UpstreamModel, task: pb.Task) -> pb.TaskResult:
    body = rerank.rerank_request(task.rerank, model.name_at_upstream)
    path = client.upstream.paths.get("rerank", rerank.PATH)
    return rerank.parse_rerank(await client.post(path, body, model), task)


async def stream_answer(
    client: Client, model: UpstreamModel, task: pb.GenerateTask
) -> AsyncGenerator[pb.ComputeStreamResponse, None]:
    """A streamed answer: its chunks, the last of them with the whole result, since each message
    costs every hop. Closing the iterator ends the upstream's call.

    Raises:
        Fault: what the upstream's status, its error or the failure on the way means; STREAM_CUT
            where the answer has not ended, which is never passed on as complete.
    """
    wire, target = wire_of(client.upstream), target_of(client.upstream, model)
    body = body_of(wire, target, task, stream=True)
    path = client.upstream.paths.get("generate", wire.path)
    async with client.stream(path, body, model) as answered:
        if not answered.is_stream:
            result = wire.parse(await read_whole(answered), task, target)
            yield pb.ComputeStreamResponse(chunk=whole_chunk(result.generate), result=result)
            return
        streamed = _streamed(wire, target, task, answered)
        if isinstance(body, AsSent):
            streamed = _streamed_as_it_comes(wire, target, task, answered, body)
        async with aclosing(streamed) as parts:
            async for part in parts:
                yield part


async def _streamed(
    wire: Wire, target: Target, task: pb.GenerateTask, answered: Body
) -> AsyncGenerator[pb.ComputeStreamResponse, None]:
    answer = wire.stream(task, target)
    async for piece in answered.pieces:
        for chunk in joined(answer.feed(piece)):
            yield pb.ComputeStreamResponse(chunk=chunk)
        if answer.is_done:
            break
    for response in _last(*answer.end()):
        yield response
    await read_to_end(answered)


async def _streamed_as_it_comes(
    wire: Wire, target: Target, task: pb.GenerateTask, answered: Body, sent: AsSent
) -> AsyncGenerator[pb.ComputeStreamResponse, None]:
    """As `_streamed`; the chunks have the provider's bytes too, to the last one."""
    answer, passed = wire.stream(task, target), PassedBytes(hides_usage=sent.hides_usage)
    async for piece in answered.pieces:
        try:
            chunks = joined(answer.feed(piece))
        except Fault as fault:
            raise told_as_it_came(fault, 200, passed.last(piece), sent.body) from None
        for chunk in passed.with_bytes(chunks, piece):
            yield pb.ComputeStreamResponse(chunk=chunk)
        if answer.is_done:
            break
    rest = await read_to_end(answered) if answer.is_done else b""
    last_chunks, result = answer.end()
    for response in _last(passed.with_last_bytes(last_chunks, rest), result):
        yield response


def _last(
    chunks: Sequence[pb.GenerateChunk], result: pb.TaskResult
) -> Iterator[pb.ComputeStreamResponse]:
    """The last chunks of an answer, of which there is at least one, with its result."""
    *before, last = chunks
    for chunk in before:
        yield pb.ComputeStreamResponse(chunk=chunk)
    yield pb.ComputeStreamResponse(chunk=last, result=result)


ADAPTERS: Mapping[str, Adapter] = {
    EMBED.name: _embed,
    GENERATE.name: _generate,
    RERANK.name: _rerank,
}
