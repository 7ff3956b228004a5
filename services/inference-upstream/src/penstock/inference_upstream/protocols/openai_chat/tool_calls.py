"""Which tool call a piece belongs to.

The protocol gives every piece an index, and id and name on the first piece alone. Servers in the
field leave the index out, give all calls index 0, repeat id and name on each piece, or make up a
new id for each piece. So a piece opens a new call where it cannot belong to an earlier one:

| the piece has | it belongs to |
|---|---|
| an id that is known | the call of that id |
| a new id and a name | a new call; but the open one where that has no id yet |
| no id, an index that is new | a new call |
| no id, a name that differs from the open call's | a new call |
| no id, a name, and begins anew after arguments that are whole | a new call |
| an index that is known | the newest call of that index |
| nothing of these | the newest call |

Pure but for the answer that grows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import orjson
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.answer import GrowingAnswer, ToolCallParts
from penstock.inference_upstream.protocols.json_values import object_of, text_of

KNOWN_KEYS = frozenset({"index", "id", "type", "function"})


class ToolCallPieces:
    """Puts the pieces of an answer's tool calls together."""

    def __init__(self, answer: GrowingAnswer, turns: int) -> None:
        self._answer = answer
        self._turns = turns
        """Turns of the conversation, for ids of calls that have none: those are then unlike the
        ids of earlier turns.
        """
        self._by_id: dict[str, ToolCallParts] = {}
        self._by_index: dict[int, ToolCallParts] = {}

    def add(self, piece: dict[str, Any], *, is_whole: bool = False) -> pb.GenerateChunk | None:
        """Take a piece, or a whole call; the chunk that says the same, if there is one yet.

        Raises:
            TypeError, ValueError: the piece does not have the expected shape.
        """
        function = object_of(piece.get("function"))
        name, id_ = text_of(function.get("name")), text_of(piece.get("id"))
        index = _index(piece.get("index"))
        arguments = _arguments(function.get("arguments"))
        call = None if is_whole else self._known_call(id_, index, name, arguments)
        if call is None:
            call = self._answer.open_tool_call()
        call.id = call.id or id_
        if id_:
            self._by_id.setdefault(id_, call)
        if index is not None:
            self._by_index[index] = call
        if name and not call.name:
            call.name = name
            call.id = call.id or f"call_{self._turns}_{call.index}"
        call.extra |= {
            key: value
            for key, value in piece.items()
            if key not in KNOWN_KEYS and value is not None
        }
        return self._answer.add_arguments(call, arguments)

    def _known_call(
        self, id_: str, index: int | None, name: str, arguments: str
    ) -> ToolCallParts | None:
        """The earlier call that a piece belongs to; see the table."""
        if id_ in self._by_id:
            return self._by_id[id_]
        calls: Sequence[ToolCallParts] = self._answer.tool_calls
        newest = calls[-1] if calls else None
        at_index = newest if index is None else self._by_index.get(index)
        if at_index is None:
            return None
        if id_ and name and (at_index.name or at_index.id):
            return None
        if not id_ and name and at_index.name and name != at_index.name:
            return None
        if not id_ and name and _begins_anew(at_index, arguments):
            return None
        return at_index


def _begins_anew(call: ToolCallParts, arguments: str) -> bool:
    """Whether arguments that begin an object follow arguments that are a whole one."""
    if not arguments.lstrip().startswith("{"):
        return False
    try:
        orjson.loads(call.arguments_json)
    except ValueError:
        return False
    return True


def _index(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("an index is a whole number")
    return value


def _arguments(value: Any) -> str:
    """Arguments as JSON text; some servers send the object itself."""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return text_of(value)
