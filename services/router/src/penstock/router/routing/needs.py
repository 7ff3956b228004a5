"""What a request needs of an instance: capabilities, a context window, inputs that are no text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.routing.choice import Exclusion, Why
from penstock.service.purity import pure

INPUTS: Mapping[str, tuple[inference_pb2.Modality, str]] = {
    "image": (inference_pb2.MODALITY_IMAGE, "images"),
    "file": (inference_pb2.MODALITY_FILE, "files"),
}
"""By the kind of a turn's part: what a model has to take, and its name for people."""


class Needs(NamedTuple):
    """What is needed; nothing as a rule."""

    capabilities: frozenset[str] = frozenset()
    tokens: int = 0
    """Tokens that must fit the context window; 0 where there is none to fit."""
    counted: bool = False
    """Whether the model's own tokenizer has counted them."""
    inputs: Mapping[str, str] = {}
    """Kinds of parts that are no text, each with the field that has the first one."""


@pure
def needs_of(request: ResolvedRequest) -> Needs:
    """What a request needs."""
    capabilities = frozenset(request.options.required_capabilities)
    if not request.kind.conversational:
        return Needs(capabilities)
    estimate, inputs = request.estimate, _inputs(request.task.generate)
    return Needs(capabilities, estimate.input_tokens, estimate.counted, inputs)


def _inputs(task: inference_pb2.GenerateTask) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for number, message in enumerate(task.messages):
        for place, part in enumerate(message.parts):
            kind = part.WhichOneof("part") or ""
            if kind in INPUTS:
                found.setdefault(kind, f"task.messages[{number}].parts[{place}].{kind}")
    return found


@pure
def unfit_because(instance: router_pb2.Instance, model: str, needs: Needs) -> Exclusion | None:
    """Why an instance is not able to serve what needs this; None where it is."""
    if missing := needs.capabilities.difference(instance.capabilities):
        return Exclusion(instance.id, Why.LACKS_CAPABILITY, ", ".join(sorted(missing)))
    offered = next((item for item in instance.models if item.name == model), None)
    if offered is None:
        return None
    if offered.max_input_tokens and needs.tokens > offered.max_input_tokens:
        how = "counted" if needs.counted else "estimated"
        return Exclusion(instance.id, Why.TOO_LONG, f"{needs.tokens} tokens, {how}")
    for kind in needs.inputs:
        modality, name = INPUTS[kind]
        if modality not in offered.inputs:
            return Exclusion(instance.id, Why.LACKS_INPUT, name)
    return None


@pure
def context_window(instance: router_pb2.Instance, model: str) -> int:
    """Tokens that an instance's model takes; 0 where it does not say."""
    return next((item.max_input_tokens for item in instance.models if item.name == model), 0)
