"""What a request needs of an instance, and which instance is not able to serve it."""

from __future__ import annotations

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.router.requests.resolved import ResolvedRequest, Task
from penstock.router.routing.needs import Needs, needs_of, unfit_because
from penstock.tasks.kind import Estimate
from penstock.tasks.kinds import EMBED, GENERATE

IMAGE = inference_pb2.ContentPart(image=inference_pb2.Image(url="https://a/b.png"))
FILE = inference_pb2.ContentPart(file=inference_pb2.File(file_id="f"))
TEXT = inference_pb2.ContentPart(text="look")


def conversation(*turns: list[inference_pb2.ContentPart]) -> Task:
    messages = [inference_pb2.Message(parts=parts) for parts in turns]
    return Task(generate=inference_pb2.GenerateTask(messages=messages))


def needs(task: Task, **estimate: object) -> Needs:
    options = router_pb2.CallOptions(required_capabilities=["fast"])
    sized = Estimate(1, 70, **estimate)  # type: ignore[arg-type]
    return needs_of(ResolvedRequest(options, GENERATE, task, "m", sized))


def instance(**model: object) -> router_pb2.Instance:
    offered = inference_pb2.Model(name="m", **model)  # type: ignore[arg-type]
    return router_pb2.Instance(id="a", capabilities=["fast"], models=[offered])


def test_a_conversation_needs_room_and_what_takes_its_parts() -> None:
    found = needs(conversation([TEXT], [TEXT, IMAGE, IMAGE, FILE]), counted=True)
    assert (found.capabilities, found.tokens, found.counted) == (frozenset({"fast"}), 70, True)
    assert found.inputs == {
        "image": "task.messages[1].parts[1].image",
        "file": "task.messages[1].parts[3].file",
    }


def test_other_kinds_need_no_room() -> None:
    request = ResolvedRequest(router_pb2.CallOptions(), EMBED, Task(), "m", Estimate(1, 70))
    assert needs_of(request) == Needs()


@pytest.mark.parametrize(
    ("offered", "why"),
    [
        (instance(inputs=["MODALITY_TEXT", "MODALITY_IMAGE"]), ""),
        (instance(max_input_tokens=70, inputs=["MODALITY_IMAGE"]), ""),
        (instance(max_input_tokens=69), "lacks room for 70 tokens, estimated"),
        (instance(), "takes no images"),
        (instance(inputs=["MODALITY_FILE"]), "takes no images"),
        (router_pb2.Instance(id="a"), "lacks fast"),
    ],
)
def test_why_an_instance_is_not_able_to_serve(offered: router_pb2.Instance, why: str) -> None:
    found = unfit_because(offered, "m", needs(conversation([TEXT, IMAGE])))
    assert (found.text if found else "") == why
