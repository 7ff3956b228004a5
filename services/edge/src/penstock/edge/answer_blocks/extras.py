"""What a provider adds to a turn or to its tool calls and must see again (`extra_json`), such as
Gemini's thought signatures. Neither Anthropic's nor OpenAI's blocks have a field for it, so that it
travels as one more block of opaque reasoning, after the turn's other blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.service.purity import pure

EXTRAS = "penstock.extras"
"""Format of the block."""


class Extra(NamedTuple):
    """One `extra_json`."""

    call_id: str
    """Of the tool call that it belongs to; empty for the turn."""
    extra_json: str


@pure
def packed_extras(extras: Sequence[Extra]) -> bytes:
    """The state of the block."""
    return orjson.dumps([list(extra) for extra in extras])


@pure
def restore_extras(message: pb.Message, state: bytes) -> None:
    """Put extras back where they were; what is not an extra, or of a call that the turn does not
    have, is left out.
    """
    calls = {call.id: call for call in message.tool_calls}
    for extra in _extras(state):
        if not extra.call_id:
            message.extra_json = extra.extra_json
        elif extra.call_id in calls:
            calls[extra.call_id].extra_json = extra.extra_json


def _extras(state: bytes) -> list[Extra]:
    try:
        found = orjson.loads(state)
        return [Extra(str(call_id), str(extra_json)) for call_id, extra_json in found]
    except (ValueError, TypeError):
        return []
