"""The ledger script: its source, its arguments and its replies. It is run by `store/connection.py`.

The theory stands at the head of `ledger/prelude.lua`. Amounts are requests, tokens and
micro-dollars, in this order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from penstock.limiter.counters import (
    NOTHING,
    Amounts,
    Counter,
    ThreeAmounts,
    organisation_prefix,
)

MODULES = ("counters", "holds")
"""Files of the folder `ledger` that every operation uses, each after those that it uses itself."""
OPERATION_MODULES = {
    "reservations": ("reserve", "extend"),
    "settlements": ("settle",),
    "leases": ("renew",),
    "inspection": ("usage", "adjust", "drain", "snapshot"),
    "migration": ("migrate",),
    "runs": (
        "run_start",
        "run_child",
        "run_hold",
        "run_settle",
        "run_change",
        "run_read",
        "run_cost",
        "run_list",
    ),
}
"""Files of the folder `ledger` by the operations that they return."""
OWN_MODULES = {"runs": ("run_costs",)}
"""Files that one of these files alone uses."""
RUN = """
holds.expire_due()
local reply = operations[ARGV[1]](unpack(cjson.decode(ARGV[4])))
-- What left a rolling window during an operation that wrote no entry of its own.
write_entry('roll', '')
return reply
"""
"""The run itself: expires what is due, and runs the operation."""


def _joined_script() -> str:
    """The files of the folder `ledger` as one script.

    Each file but the first is a Lua module: a function whose locals are its own and
    which returns a table. Of the operations' modules only the one that is needed is called, because
    Lua makes all functions of a script anew in each run, and that takes as long as several of them.
    """
    parts = [_lua("prelude")]
    parts += [f"local {name} = {_module(name)}" for name in MODULES]
    parts.append("local operations\n")
    for name, operations in OPERATION_MODULES.items():
        is_needed = " or ".join(f"ARGV[1] == '{operation}'" for operation in operations)
        used = "".join(f"local {part} = {_module(part)}" for part in OWN_MODULES.get(name, ()))
        parts.append(f"if {is_needed} then\n{used}operations = {_module(name)}end\n")
    parts.append(RUN)
    return "".join(parts)


def files_of(operation: str) -> tuple[str, ...]:
    """The names, without suffix, of the files in the folder `ledger` that an operation runs."""
    own = next(name for name, operations in OPERATION_MODULES.items() if operation in operations)
    return ("prelude", *MODULES, *OWN_MODULES.get(own, ()), own)


def _module(name: str) -> str:
    """A file as an expression: its function, called."""
    return f"(function()\n{_lua(name)}end)()\n"


def _lua(name: str) -> str:
    file = files("penstock.limiter").joinpath("ledger", f"{name}.lua")
    return file.read_text(encoding="utf-8")


SCRIPT = _joined_script()
STALE_WINDOWS = 99
"""A verdict of the script alone: the windows of the counters are not those of the store's clock,
whose Unix milliseconds stand in `available`.
"""
UNBOUNDED = 2**53 - 1
"""What a lease is granted of an amount that no rule counts."""
ScriptReply = list[Any]
"""What the script returns: numbers and byte strings."""


class ScriptCall(NamedTuple):
    """One run of the script: an operation on the keys of an organisation."""

    operation: str
    key_prefix: str
    arguments: str
    """A JSON array."""


class StaleWindows(Exception):
    """The windows of the counters are not those of the store's clock, `now_s` (Unix seconds)."""

    def __init__(self, now_s: float) -> None:
        super().__init__(now_s)
        self.now_s = now_s


@dataclass(frozen=True)
class Reservation:
    """What a call asks to spend, or a router to lease.

    Args:
        max_cost: the most that a call may cost; the share that a lease wants.
        expected_cost: what rules with `holds: expected` hold for a call.
        min_cost: what stays spent if nobody settles a call; the smallest lease that is of use.
        ttl_ms: after this the hold expires; 0: it is spent at once and never settled.
        priority: 1 to 4; 4 is the most urgent.
        is_unpriced: the model has no price, so rules that count micro-dollars refuse.
        share: the part of what is available that a lease may take.
        fence: which try of the hold's id this is, where several may be made; 0: one only.
    """

    max_cost: Amounts
    expected_cost: Amounts
    min_cost: Amounts
    ttl_ms: int
    priority: int = 2
    is_unpriced: bool = False
    is_lease: bool = False
    share: float = 1.0
    fence: int = 0


@dataclass(frozen=True)
class Renewal:
    """What a lease has spent since its grant, and what it wants to hold from now on."""

    spent: Amounts
    wanted: Amounts
    share: float
    priority: int


class Alert(NamedTuple):
    """A counter of the path, by index, has newly reached a share of its limit."""

    counter_index: int
    share_thousandths: int


class Ruling(NamedTuple):
    """What the script decides about a reservation, an extension or a renewal."""

    verdict: int
    counter_index: int = -1
    """Counter of the path that decided; -1: none."""
    retry_after_ms: int = 0
    available: int = 0
    """What the deciding counter has left."""
    granted: ThreeAmounts = NOTHING
    is_tight: bool = False
    """True: a strict budget has too little left to be leased, so each call has to be reserved."""
    alerts: tuple[Alert, ...] = ()
    rules: tuple[str, ...] = ()
    """Rules of the path, where the script knows it and the caller does not."""


class Settlement(NamedTuple):
    """What ending a hold did: whether it was open, and what it held at most."""

    was_open: bool
    held: ThreeAmounts


class CounterUsage(NamedTuple):
    """The state of one counter; `window_ends_ms` is Unix milliseconds, or 0 without a calendar."""

    limit: int
    committed: int
    held: int
    window_ends_ms: int


def reserve_arguments(hold_id: str, path: Sequence[Counter], reservation: Reservation) -> str:
    """The arguments of `reserve`."""
    return to_json(
        hold_id,
        int(reservation.is_lease),
        PathRows(path),
        reservation.max_cost,
        reservation.expected_cost,
        reservation.min_cost,
        reservation.ttl_ms,
        reservation.priority,
        int(reservation.is_unpriced),
        reservation.share,
        reservation.fence,
    )


def renew_arguments(lease_id: str, renewal: Renewal) -> str:
    """The arguments of `renew`."""
    return to_json(lease_id, renewal.spent, renewal.wanted, renewal.share, renewal.priority)


def parse_reserved(reply: ScriptReply) -> Ruling:
    """The ruling of `reserve`."""
    return Ruling(*_head(reply), _amounts(reply, 4), bool(reply[7]), _alerts(reply[8:]))


def parse_extended(reply: ScriptReply, organisation: str) -> Ruling:
    """The ruling of `extend`."""
    alerts, rules = _named_alerts(reply[4:], organisation)
    return Ruling(*_head(reply), alerts=alerts, rules=rules)


def parse_renewed(reply: ScriptReply, organisation: str) -> Ruling:
    """The ruling of `renew`."""
    alerts, rules = _named_alerts(reply[7:], organisation)
    return Ruling(*_head(reply), _amounts(reply, 4), alerts=alerts, rules=rules)


def parse_settled(reply: ScriptReply) -> Settlement:
    """What `settle` did."""
    return Settlement(reply[0] > 0, _amounts(reply, 1))


def parse_usage(reply: ScriptReply) -> list[CounterUsage]:
    """The counters of a reply of `usage`, in the order of the path; raises StaleWindows."""
    numbers = parse_numbers(reply)
    return [CounterUsage(*numbers[index : index + 4]) for index in range(0, len(numbers), 4)]


def parse_numbers(reply: ScriptReply) -> list[int]:
    """The numbers that follow a verdict; raises StaleWindows."""
    if reply[0] == STALE_WINDOWS:
        raise StaleWindows(int(reply[1]) / 1000)
    return [int(value) for value in reply[1:]]


def to_json(*arguments: Any) -> str:
    """The arguments of an operation as the script reads them."""
    parts = (
        argument.json if isinstance(argument, PathRows) else json.dumps(argument)
        for argument in arguments
    )
    return f"[{','.join(parts)}]"


class PathRows:
    """A path as JSON, made once for as long as its windows last."""

    def __init__(self, path: Sequence[Counter]) -> None:
        self.json = _rows_json(tuple(path))


@lru_cache(maxsize=16_384)
def _rows_json(path: tuple[Counter, ...]) -> str:
    return json.dumps([counter.row() for counter in path])


def _head(reply: ScriptReply) -> tuple[int, int, int, int]:
    """Verdict, index of the deciding counter, retry and available amount."""
    return reply[0], reply[1] - 1, reply[2], int(reply[3])


def _amounts(reply: ScriptReply, begin: int) -> ThreeAmounts:
    return int(reply[begin]), int(reply[begin + 1]), int(reply[begin + 2])


def _alerts(pairs: ScriptReply) -> tuple[Alert, ...]:
    """Alerts from indexes (from 1) and shares in turn."""
    return tuple(Alert(pairs[index] - 1, pairs[index + 1]) for index in range(0, len(pairs), 2))


def _named_alerts(
    rest: ScriptReply, organisation: str
) -> tuple[tuple[Alert, ...], tuple[str, ...]]:
    """Alerts and the rules of the path; none where the reply names no counter."""
    if not rest:
        return (), ()
    *pairs, keys = rest
    begin = len(organisation_prefix(organisation)) + len("c:")
    rules = tuple(key[begin:].partition(":")[0] for key in json.loads(keys))
    return _alerts(pairs), rules
