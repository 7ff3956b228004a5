"""What a caller says beside its request: Penstock's own headers, and those of known agents. Pure.

Clients that cannot set headers say the same in `metadata`: `penstock_run` is `x-penstock-run`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from penstock.api.router.v1 import router_pb2
from penstock.edge.wire import Asked, BadRequest, Headers
from penstock.rpc.call import PRIORITIES
from penstock.service.purity import pure

PREFIX = "x-penstock-"
RUN, FINAL, STEP, PRIORITY, MAX_COST, CACHE, TIMEOUT = (
    "run",
    "final",
    "step",
    "priority",
    "max-cost",
    "cache",
    "timeout-ms",
)
IN_METADATA = {
    name: f"penstock_{name.replace('-', '_')}"
    for name in (RUN, FINAL, STEP, PRIORITY, MAX_COST, CACHE)
}
"""What clients that cannot set headers call them."""
SESSIONS = ("x-claude-code-session-id", "session-id", "session_id", "thread-id")
"""Headers of coding agents that name a conversation: it is their run."""
STEPS = ("x-claude-code-agent-id", "x-openai-subagent")
"""Headers that name a part of it."""
CACHE_MODES = ("default", "bypass", "no-store", "refresh")
MICROUSD = 1_000_000
"""Of a dollar."""
DOLLARS = re.compile(r"[0-9]+(?:\.[0-9]+)?")
MAX_COST_CHARACTERS = 16
MAX_RUN_BYTES = 128


@pure
def options_of(asked: Asked, headers: Headers) -> router_pb2.CallOptions:
    """The options of a call.

    Raises:
        BadRequest: naming the header.
    """
    options = router_pb2.CallOptions(
        model=asked.model,
        run_id=_bounded(headers, asked.metadata, RUN) or _first(headers, SESSIONS),
        step=_bounded(headers, asked.metadata, STEP) or _first(headers, STEPS),
        affinity_key=asked.affinity,
    )
    _put_final(options, _said(headers, asked.metadata, FINAL))
    _put_priority(options, _said(headers, asked.metadata, PRIORITY))
    _put_cost(options, _said(headers, asked.metadata, MAX_COST))
    _put_cache(options, _said(headers, asked.metadata, CACHE))
    return options


@pure
def timeout_s(headers: Headers, default_s: float) -> float:
    """Seconds that the call may take: what the header says, at most the default.

    Raises:
        BadRequest: it is no positive number.
    """
    said = headers.get(PREFIX + TIMEOUT, "")
    if not said:
        return default_s
    if not said.isdecimal() or int(said[:12]) < 1:
        raise BadRequest(f"{PREFIX}{TIMEOUT}: must be milliseconds, at least 1", PREFIX + TIMEOUT)
    return min(default_s, int(said[:12]) / 1e3)


def _said(headers: Headers, metadata: Mapping[str, str], name: str) -> str:
    said = headers.get(PREFIX + name)
    if said is None:
        said = metadata.get(IN_METADATA[name], "")
    return said.strip()


def _bounded(headers: Headers, metadata: Mapping[str, str], name: str) -> str:
    said = _said(headers, metadata, name)
    if len(said.encode()) > MAX_RUN_BYTES:
        raise BadRequest(f"{PREFIX}{name}: has more than {MAX_RUN_BYTES} bytes", PREFIX + name)
    return said


def _first(headers: Headers, names: tuple[str, ...]) -> str:
    """The first header that is there and short enough to be a name."""
    said = (headers.get(name, "").strip() for name in names)
    return next((each for each in said if each and len(each.encode()) <= MAX_RUN_BYTES), "")


def _put_final(options: router_pb2.CallOptions, said: str) -> None:
    """Whether the call is for its run's final answer, which may draw on the run's reserve."""
    if said.lower() not in ("", "true", "false"):
        raise BadRequest(f"{PREFIX}{FINAL}: must be true or false", PREFIX + FINAL)
    options.run_final = said.lower() == "true"


def _put_priority(options: router_pb2.CallOptions, said: str) -> None:
    if not said:
        return
    if said.lower() not in PRIORITIES:
        known = ", ".join(PRIORITIES)
        raise BadRequest(f"{PREFIX}{PRIORITY}: must be one of {known}", PREFIX + PRIORITY)
    options.priority = PRIORITIES[said.lower()]


def _put_cost(options: router_pb2.CallOptions, said: str) -> None:
    """Dollars, such as `0.05`."""
    if not said:
        return
    if len(said) > MAX_COST_CHARACTERS or DOLLARS.fullmatch(said) is None:
        raise BadRequest(f"{PREFIX}{MAX_COST}: must be dollars, such as 0.05", PREFIX + MAX_COST)
    options.max_cost_microusd = int(Decimal(said) * MICROUSD)


def _put_cache(options: router_pb2.CallOptions, said: str) -> None:
    match said.lower():
        case "" | "default":
            return
        case "bypass":
            options.cache.bypass = True
        case "no-store":
            options.cache.no_store = True
        case "refresh":
            options.cache.max_age_ms = 1
        case _:
            known = ", ".join(CACHE_MODES)
            raise BadRequest(f"{PREFIX}{CACHE}: must be one of {known}", PREFIX + CACHE)
