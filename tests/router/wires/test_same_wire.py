"""Requests that carry their own bytes through the router: who may send them, and where they go."""

from __future__ import annotations

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.api.translating_callers import marking_translators
from penstock.router.calls.resuming import Delivered, continued
from penstock.router.instances.backends import task_for
from penstock.router.settings import RouterSettings
from penstock.rpc.auth import TOKEN_KEY, CallerMetadata, proof
from penstock.rpc.call import Call
from penstock.service.service_tokens import SharedToken
from penstock.tasks.wire_request import CAPABILITIES

from ..routed import StartRouter
from .instances import join

ROUTER = pb.DESCRIPTOR.services_by_name["RouterService"]
CHAT = inference_pb2.WIRE_OPENAI_CHAT
BODY = b'{"model":"m"}'
TOKEN = "a-token-of-the-services-of-this-test"


def conversation() -> inference_pb2.GenerateTask:
    turn = inference_pb2.Message(role=inference_pb2.ROLE_USER, content="is it?")
    given = inference_pb2.WireRequest(wire=CHAT, body=BODY)
    return inference_pb2.GenerateTask(messages=[turn], wire_request=given)


def presenting(token: str = "", *names: str) -> CallerMetadata:
    metadata = CallerMetadata({TOKEN_KEY: token} if token else {})
    metadata.names = frozenset(names)
    return metadata


@pytest.mark.parametrize(
    ("metadata", "is_believed"),
    [
        (presenting(proof(TOKEN, "edge", "router")), True),
        (presenting("", "edge"), True),
        (presenting(proof(TOKEN, "scaler", "router")), False),
        (presenting(proof(TOKEN, "edge", "batcher")), False),
        (presenting(proof("another-token-of-somebody", "edge", "router")), False),
        (presenting("edge|router|"), False),
        (presenting(TOKEN), False),
        (presenting("", "scaler"), False),
        (presenting(), False),
    ],
)
@pytest.mark.threat("wire body of a caller that is no edge")
async def test_only_a_service_that_translates_is_believed(
    metadata: CallerMetadata, is_believed: bool
) -> None:
    authenticate = marking_translators(lambda _: Call(), SharedToken(TOKEN), ROUTER)
    made = authenticate(metadata)
    call = made if isinstance(made, Call) else await made
    assert call.is_translated is is_believed


async def test_the_bytes_of_a_foreign_caller_are_dropped(start_router: StartRouter) -> None:
    async with start_router(RouterSettings()) as routed:
        instance = await join(routed, "a", "m")
        routed.registry.registered["a"].capabilities.append(CAPABILITIES[CHAT])
        request = pb.GenerateRequest(options=pb.CallOptions(model="m"), task=conversation())
        await routed.stub.Generate(request, metadata=routed.metadata, timeout=20)
    assert [task.generate.HasField("wire_request") for task in instance.tasks] == [False]


@pytest.mark.parametrize(
    ("capabilities", "gets_bytes"),
    [([], False), (["wire:anthropic-messages"], False), (["wire:openai-chat"], True)],
)
def test_only_an_instance_of_the_wire_gets_the_bytes(
    capabilities: list[str], gets_bytes: bool
) -> None:
    task = inference_pb2.Task(generate=conversation())
    sent = task_for(pb.Instance(id="a", capabilities=capabilities), task)
    assert sent.generate.HasField("wire_request") is gets_bytes
    assert sent.generate.messages == task.generate.messages
    assert task.generate.HasField("wire_request")


def test_nobody_goes_on_in_a_providers_own_bytes() -> None:
    delivered = Delivered()
    delivered.add(inference_pb2.GenerateChunk(keep_alive=True, wire_piece=b": hi\n"))
    assert delivered.begun
    assert not delivered.whole


def test_the_rest_of_an_answer_is_asked_for_in_translation() -> None:
    task = inference_pb2.Task(generate=conversation())
    assert not continued(task, "yes").generate.HasField("wire_request")
