"""The request of an HTTP client as it came, which a conversation may carry beside what was
translated from it: what may stand there, and what of it tells one request from another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.rpc.errors import invalid

MAX_WIRE_BODY_BYTES = 16 << 20
"""A body and the task that is translated from it fit one request together."""
MAX_HEADERS = 16
MAX_HEADER_CHARACTERS = 2_048
HEADER_PREFIXES: Mapping[pb.Wire, str] = {
    pb.WIRE_OPENAI_CHAT: "openai-",
    pb.WIRE_ANTHROPIC_MESSAGES: "anthropic-",
}
"""How the names of headers begin that belong to a protocol; others are not sent on."""
NOT_SENT_ON = frozenset({"openai-organization", "openai-project"})
"""Headers that name an account at the provider, which is the operator's."""
CAPABILITIES: Mapping[pb.Wire, str] = {
    pb.WIRE_OPENAI_CHAT: "wire:openai-chat",
    pb.WIRE_ANTHROPIC_MESSAGES: "wire:anthropic-messages",
}
"""What an instance says of itself that sends requests of a wire on as they came."""
CONVERSATION = frozenset({"model", "messages"})
"""Fields of a body that the translated task holds whole."""


def check_wire_request(asked: pb.WireRequest, at: str) -> None:
    """Check a request's own bytes; whether they are JSON is found out where they are sent.

    Raises:
        Fault: INVALID_ARGUMENT for what cannot be.
    """
    if asked.wire not in CAPABILITIES:
        raise invalid(f"{at}.wire", "is missing or unknown")
    if not asked.body:
        raise invalid(f"{at}.body", "is empty")
    if len(asked.body) > MAX_WIRE_BODY_BYTES:
        raise invalid(f"{at}.body", f"has more than {MAX_WIRE_BODY_BYTES} bytes; leave it out")
    if len(asked.headers) > MAX_HEADERS:
        raise invalid(f"{at}.headers", f"has more than {MAX_HEADERS} entries")
    for name, value in asked.headers.items():
        if len(name) + len(value) > MAX_HEADER_CHARACTERS or not _is_header(name + value):
            raise invalid(f"{at}.headers", "has a name or a value that no header can have")


def _is_header(text: str) -> bool:
    return text.isascii() and text.isprintable()


def headers_sent_on(asked: pb.WireRequest) -> dict[str, str]:
    """The headers of the protocol, by names in lower case."""
    return headers_of_wire(asked.wire, asked.headers)


def headers_of_wire(wire: pb.Wire, headers: Mapping[str, str]) -> dict[str, str]:
    """Those headers that belong to a protocol, by names in lower case."""
    prefix = HEADER_PREFIXES[wire]
    named = {name.lower(): value for name, value in headers.items()}
    return {
        name: value
        for name, value in named.items()
        if name.startswith(prefix) and name not in NOT_SENT_ON
    }


def settings_of(asked: pb.WireRequest) -> bytes:
    """What a body says beside the conversation, in a form that is equal for equal settings."""
    try:
        fields = json.loads(asked.body)
    except (ValueError, RecursionError):
        return asked.body
    rest = {name: value for name, value in fields.items() if name not in CONVERSATION}
    headers = sorted(headers_sent_on(asked).items())
    return json.dumps([int(asked.wire), headers, rest], sort_keys=True).encode()


def translated(task: pb.Task) -> pb.Task:
    """The task without the bytes that it was translated from; the same where there are none."""
    if not task.generate.HasField("wire_request"):
        return task
    copy = pb.Task()
    copy.CopyFrom(task)
    copy.generate.ClearField("wire_request")
    return copy


def without_bytes(result: pb.TaskResult) -> pb.TaskResult:
    """The answer without the provider's bytes, as it is kept: they name one call."""
    copy = pb.TaskResult()
    copy.CopyFrom(result)
    copy.generate.ClearField("wire_body")
    return copy
