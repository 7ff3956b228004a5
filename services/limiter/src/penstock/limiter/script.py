"""The script in the store: how questions to it are written, and how its replies are read.

No connection lives here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from penstock.limiter.decisions import STALE_WINDOWS, CounterUsage, Reservation, Ruling
from penstock.limiter.rules import Counter, organisation_prefix

MODULES = ("entries", "protection", "counters", "holds")
"""Files of the folder `ledger` that every operation uses, each after those that it uses itself."""
OPERATION_MODULES = {
    "reservations": ("reserve", "extend"),
    "settlements": ("settle",),
    "leases": ("renew",),
    "inspection": ("usage", "adjust", "drain", "snapshot"),
}
"""Files of the folder `ledger` by the operations that they return."""


def _joined_script() -> str:
    """The files of the folder `ledger` as one script.

    Each file but the first and the last is a Lua module: a function whose locals are its own and
    which returns a table. Of the operations' modules only the one that is needed is called, because
    Lua makes all functions of a script anew in each run, and that takes as long as several of them.
    """
    parts = [_lua("prelude")]
    parts += [f"local {name} = (function()\n{_lua(name)}end)()\n" for name in MODULES]
    parts.append("local operations\n")
    for name, operations in OPERATION_MODULES.items():
        is_needed = " or ".join(f"ARGV[1] == '{operation}'" for operation in operations)
        parts.append(f"if {is_needed} then\noperations = (function()\n{_lua(name)}end)()\nend\n")
    parts.append(_lua("main"))
    return "".join(parts)


def _lua(name: str) -> str:
    file = files("penstock.limiter").joinpath("ledger", f"{name}.lua")
    return file.read_text(encoding="utf-8")


SCRIPT = _joined_script()
States = Mapping[str, tuple[int, int, int]]
"""Window, committed and held by counter."""


class WindowPassed(Exception):
    """The caller's windows are not those of the store's time, `now_s` (Unix seconds)."""

    def __init__(self, now_s: float) -> None:
        super().__init__(now_s)
        self.now_s = now_s


def to_reserve(hold_id: str, path: Sequence[Counter], ask: Reservation) -> str:
    """Arguments of `reserve`."""
    return arguments(
        hold_id,
        int(ask.lease),
        Rows(path),
        ask.most,
        ask.usual,
        ask.least,
        ask.ttl_ms,
        ask.priority,
        int(ask.unpriced),
        ask.share,
    )


def reserved(found: Sequence[Any]) -> Ruling:
    """The reply of `reserve`."""
    alerts = tuple((found[index] - 1, found[index + 1]) for index in range(8, len(found), 2))
    granted = int(found[4]), int(found[5]), int(found[6])
    return Ruling(found[0], found[1] - 1, found[2], int(found[3]), granted, bool(found[7]), alerts)


def extended(found: Sequence[Any], organisation: str) -> Ruling:
    """The reply of `extend`."""
    return Ruling(
        found[0], found[1] - 1, found[2], int(found[3]), **_named(found[4:], organisation)
    )


def renewed(found: Sequence[Any], organisation: str) -> Ruling:
    """The reply of `renew`."""
    granted = int(found[4]), int(found[5]), int(found[6])
    return Ruling(
        found[0], found[1] - 1, found[2], int(found[3]), granted, **_named(found[7:], organisation)
    )


def used(found: Sequence[Any]) -> list[CounterUsage]:
    """The reply of `usage`; raises WindowPassed."""
    numbers = present(found)
    return [CounterUsage(*numbers[index : index + 4]) for index in range(0, len(numbers), 4)]


def states(pairs: Sequence[str]) -> States:
    """Window, committed and held by counter, from keys and texts in turn."""
    numbers = [tuple(int(word) for word in text.split()) for text in pairs[1::2]]
    return {
        key: (at, spent, held) for key, (at, spent, held) in zip(pairs[::2], numbers, strict=True)
    }


def arguments(*arguments: Any) -> str:
    """Arguments of an operation as the script reads them."""
    parts = (
        argument.json if isinstance(argument, Rows) else json.dumps(argument)
        for argument in arguments
    )
    return f"[{','.join(parts)}]"


def present(found: Sequence[Any]) -> list[int]:
    """The numbers of a reply that begins with a verdict; raises WindowPassed."""
    if found[0] == STALE_WINDOWS:
        raise WindowPassed(int(found[1]) / 1000)
    return [int(value) for value in found[1:]]


def _named(rest: Sequence[Any], organisation: str) -> dict[str, Any]:
    """Alerts and names of rules from the end of a reply; there is none where nothing is to be
    named.
    """
    if not rest:
        return {}
    *pairs, keys = rest
    alerts = tuple((pairs[index] - 1, pairs[index + 1]) for index in range(0, len(pairs), 2))
    begin = len(organisation_prefix(organisation)) + len("c:")
    return {
        "alerts": alerts,
        "rules": tuple(key[begin:].partition(":")[0] for key in json.loads(keys)),
    }


class Rows:
    """A path as JSON, made once for as long as its windows last."""

    def __init__(self, path: Sequence[Counter]) -> None:
        self.json = _rows(tuple(path))


@lru_cache(maxsize=16_384)
def _rows(path: tuple[Counter, ...]) -> str:
    return json.dumps([counter.row() for counter in path])
