"""How the scripted upstream knows which recorded turn a request asks for.

No header of a caller's reaches a provider through Penstock without being part of the request that
its cache compares. So a turn is known by what nothing on the way may change: what users and the
assistant said, which results stand there (by the identifiers of their calls), and the name of the
schema that the answer has to fit. Instructions, tools and the text of results may be shaped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.bench.agent_replay.traffic.recordings import Json, text_of


def turn_key(messages: Sequence[Json], settings: Mapping[str, Any]) -> str:
    """The key of the turn that follows these messages."""
    said = [_said(turn) for turn in messages if turn["role"] != "system"]
    schema = (settings.get("response_format") or {}).get("json_schema") or {}
    form = json.dumps([schema.get("name", ""), said], ensure_ascii=False)
    return hashlib.blake2b(form.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _said(turn: Json) -> list[str]:
    if turn["role"] == "tool":
        return ["tool", turn["tool_call_id"]]
    calls = [call["id"] for call in turn.get("tool_calls") or []]
    return [turn["role"], text_of(turn), *calls]
