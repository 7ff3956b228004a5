"""Volatile heads: what agents put before their instructions and change from call to call.

Six styles, each with a moment of the call and with chance. The first three have the form `label:
value` that the rule of `penstock.prompts.prefix` matches; no rule there knows the other three.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

Head = Callable[[datetime, random.Random], str]
BEGAN = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
CALL_S = 37
"""Seconds between two calls of one run, as the heads tell it."""


def _clock(now: datetime, _: random.Random) -> str:
    return f"Current time: {now:%Y-%m-%dT%H:%M:%SZ}"


def _identifier(_: datetime, rng: random.Random) -> str:
    return f"Request id: {rng.randbytes(16).hex()}"


def _epoch(now: datetime, _: random.Random) -> str:
    return f"timestamp = {int(now.timestamp())}"


def _sentence(now: datetime, rng: random.Random) -> str:
    served = rng.randrange(10, 400)
    return f"It is now {now:%I:%M:%S %p on %A, %B %d}; you have helped {served} customers today."


def _json_line(now: datetime, rng: random.Random) -> str:
    said = {"now": f"{now:%H:%M:%S}", "nonce": rng.randbytes(5).hex(), "load": rng.random()}
    return json.dumps(said)


def _block(now: datetime, rng: random.Random) -> str:
    lines = (
        "<environment>",
        f"  <clock>{now:%d %b, %H:%M:%S}</clock>",
        "  <channel>phone</channel>",
        f"  <queue waiting='{rng.randrange(60)}' longest='{rng.randrange(900)} s'/>",
        "</environment>",
    )
    return "\n".join(lines)


STYLES: Mapping[str, Head] = {
    "labelled clock": _clock,
    "labelled identifier": _identifier,
    "epoch": _epoch,
    "clock in a sentence": _sentence,
    "line of JSON": _json_line,
    "block of XML": _block,
}
KNOWN = ("labelled clock", "labelled identifier", "epoch")
"""Styles whose form a rule in the code matches."""


def head_of(style: str, run: str, call: int) -> str:
    """The head of a run's call, the same each time it is asked for.

    Raises:
        KeyError: there is no such style.
    """
    rng = random.Random(f"{style} {run} {call}")
    start = random.Random(f"{style} {run}").randrange(8 * 3600)
    return STYLES[style](BEGAN + timedelta(seconds=start + call * CALL_S), rng)
