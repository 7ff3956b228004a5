"""What every wire needs to make a turn of the contract from JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.edge.json_fields import refused
from penstock.edge.wire import BadRequest
from penstock.service.purity import pure

UNSUPPORTED = "unsupported_parameter"
"""Code of the refusal of what a protocol has and the contract has not."""


@pure
def unsupported(at: str, problem: str) -> BadRequest:
    """The refusal of a field that is right and cannot be honoured."""
    return BadRequest(f"{at}: {problem}", at, UNSUPPORTED)


@pure
def put_parts(message: pb.Message, parts: Sequence[pb.ContentPart]) -> None:
    """Make parts the content of a turn: one text is `content`, so that equal turns are equal
    however they are written.
    """
    if len(parts) == 1 and parts[0].HasField("text"):
        message.content = parts[0].text
        message.cache_breakpoint = parts[0].cache_breakpoint
    else:
        message.parts.extend(parts)


@pure
def web_address(url: str, at: str) -> str:
    """An address that a provider can read.

    Raises:
        BadRequest: it is something else.
    """
    if not url.startswith(("https://", "http://")):
        raise refused(at, "must begin with https:// or http://")
    return url
