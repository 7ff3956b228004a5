"""Hits by meaning: a model that sorts texts into intents, and a text that a similar one answers."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.bench.harness.load import Send
from penstock.bench.overhead.stacks import SORTER, TENANT
from penstock.stack.stack import Stack
from penstock.testkit.intents import SYSTEM_PROMPT, IntentInstance, intents_by_text
from penstock.testkit.registered import Registration, registered_instance

REGISTRATION = Registration(
    SORTER, SORTER, ("generate",), concurrency=16, tenancy=router_pb2.TENANCY_UPSTREAM
)
PROBE = "good morning, block my card, can you help"
MAX_TEXTS, TEXTS_PER_PROBE = 2_000, 25
SEED = 7
SEMANTIC_HIT = common_pb2.CACHE_OUTCOME_SEMANTIC_HIT


@contextlib.asynccontextmanager
async def sorter(stack: Stack) -> AsyncIterator[None]:
    """The model, registered for as long as it is needed."""
    instance = IntentInstance(intents_by_text())
    registry = stack.addresses["registry"]
    async with registered_instance(instance, REGISTRATION, registry, stack.registering()):
        await stack.wait_for_instances(SORTER, 1, TENANT)
        yield


async def semantic_hit_of(stack: Stack, padding: str) -> Send:
    """Sends a text that is answered as a similar one was; one answer in fifty is computed all the
    same, to audit. Other texts are sent before, until it is.

    Raises:
        RuntimeError: it never is.
    """
    texts = [text for text in sorted(intents_by_text()) if text != PROBE]
    random.Random(SEED).shuffle(texts)
    for number, text in enumerate(texts[:MAX_TEXTS]):
        await _ask(stack, text, padding)
        if number % TEXTS_PER_PROBE == 0 and await _ask(stack, PROBE, padding) == SEMANTIC_HIT:
            break
    else:
        raise RuntimeError("no similar text was served; check the cache's gate and error bound")

    async def send(_: int) -> object:
        return await _ask(stack, PROBE, padding)

    return send


async def _ask(stack: Stack, text: str, padding: str) -> int:
    """Ask; what the cache did. The probe's own answer is never stored: it would be an exact hit."""
    cache = router_pb2.CachePolicy(no_store=text == PROBE)
    request = router_pb2.GenerateRequest(options=router_pb2.CallOptions(model=SORTER, cache=cache))
    system = f"{SYSTEM_PROMPT} {padding}".rstrip()
    request.task.messages.add(role=inference_pb2.ROLE_SYSTEM, content=system)
    request.task.messages.add(role=inference_pb2.ROLE_USER, content=text)
    answer = await stack.router.Generate(request, metadata=stack.metadata(TENANT))
    return int(answer.receipt.cache.outcome)
