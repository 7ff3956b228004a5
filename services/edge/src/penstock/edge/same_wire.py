"""A request's own bytes beside what was read from them, and a provider's words in place of ours.
See docs/decisions/0108. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.wire import Failure, Headers
from penstock.service.purity import pure
from penstock.tasks.wire_request import MAX_HEADERS, MAX_WIRE_BODY_BYTES, headers_of_wire

WIRES: Mapping[str, pb.Wire] = {
    "/v1/chat/completions": pb.WIRE_OPENAI_CHAT,
    "/v1/messages": pb.WIRE_ANTHROPIC_MESSAGES,
}
"""Paths whose protocol is one of providers."""
EVENT_END = b"\n\n"
INSIDE_A_STREAM = 200
"""The status of a provider's error that came inside a stream."""


@pure
def put_wire_request(task: pb.GenerateTask, path: str, body: bytes, headers: Headers) -> None:
    """Set the request as it came, for a provider that speaks its wire; nothing where there is no
    such wire or the body is too large to go beside its translation.
    """
    wire = WIRES.get(path)
    if wire is None or len(body) > MAX_WIRE_BODY_BYTES:
        return
    given = task.wire_request
    given.wire, given.body = wire, body
    printable = [
        (name, value)
        for name, value in headers_of_wire(wire, headers).items()
        if (name + value).isascii() and (name + value).isprintable()
    ]
    given.headers.update(printable[:MAX_HEADERS])


@pure
def providers_reply(failure: Failure) -> tuple[int, bytes] | None:
    """Status and body that a provider gave; None where they are ours to say."""
    said = failure.providers
    return said if said is not None and said[0] != INSIDE_A_STREAM else None


@pure
def providers_event(failure: Failure) -> bytes | None:
    """The provider's own events that end a failed stream; None where they are ours to say."""
    said = failure.providers
    if said is None or said[0] != INSIDE_A_STREAM:
        return None
    return said[1]
