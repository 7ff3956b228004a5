"""A model of the store in virtual time that runs the scripts which ship: Lua 5.1 through `lupa`, on
plain Python data.

It has the commands that `ledger.lua` uses, with Redis' meaning, and no others; an unknown one
raises. Expiry follows the model's own time. For simulations and benchmarks in virtual time;
services run on a real store.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from lupa import lua51

Reply = Any


class StoreModel:
    """Keys and values in memory. `now_ms` is the model's time, which its owner moves."""

    def __init__(self) -> None:
        self.now_ms = 0
        self._values: dict[str, Any] = {}
        self._expires_ms: dict[str, int] = {}
        self._entries = 0
        self._scripts: dict[str, Callable[..., Any]] = {}
        self._lua = lua51.LuaRuntime(unpack_returned_tuples=True, encoding="utf-8")
        self._table = self._lua.table_from
        environment = self._lua.globals()
        environment.redis = self._table({"call": self._call})
        environment.cjson = self._table({"decode": self._decode, "encode": self._encode})

    def eval(self, script: str, keys: Sequence[str], arguments: Sequence[object]) -> list[Reply]:
        """Run a script and return its reply as redis-py would, with texts as bytes."""
        run = self._scripts.get(script)
        if run is None:
            run = self._scripts[script] = self._lua.eval(f"function(KEYS, ARGV) {script} end")
        found = run(self._table(list(keys)), self._table([str(part) for part in arguments]))
        return [part.encode() if isinstance(part, str) else part for part in found.values()]

    def _decode(self, text: str) -> Any:
        return self._to_lua(json.loads(text))

    def _to_lua(self, value: Any) -> Any:
        if isinstance(value, list):
            return self._table([self._to_lua(part) for part in value])
        return value

    def _encode(self, value: Any) -> str:
        return json.dumps(self._from_lua(value), separators=(",", ":"))

    def _from_lua(self, value: Any) -> Any:
        if lua51.lua_type(value) == "table":
            return [self._from_lua(part) for part in value.values()]
        if isinstance(value, float) and value.is_integer():
            return int(value)
        return value

    def _call(self, command: str, *arguments: Any) -> Any:
        method = getattr(self, f"_{command.lower()}", None)
        if method is None:
            raise NotImplementedError(f"the store model has no {command}")
        return method(*(_text(part) for part in arguments))

    def _at(self, key: str, kind: type[Any]) -> Any:
        """The value of a key, made where there is none."""
        self._alive(key)
        return self._values.setdefault(key, kind())

    def _alive(self, key: str) -> bool:
        if self._expires_ms.get(key, self.now_ms + 1) <= self.now_ms:
            self._del(key)
        return key in self._values

    def _time(self) -> Any:
        return self._table([self.now_ms // 1000, self.now_ms % 1000 * 1000])

    def _get(self, key: str) -> Any:
        return self._values[key] if self._alive(key) else False

    def _set(self, key: str, value: str, *options: str) -> str:
        self._values[key] = value
        self._expires_ms.pop(key, None)
        if options[:1] == ("PX",):
            self._pexpire(key, options[1])
        return "OK"

    def _del(self, key: str) -> int:
        self._expires_ms.pop(key, None)
        return int(self._values.pop(key, None) is not None)

    def _exists(self, key: str) -> int:
        return int(self._alive(key))

    def _pexpire(self, key: str, milliseconds: str) -> int:
        self._expires_ms[key] = self.now_ms + int(milliseconds)
        return 1

    def _hget(self, key: str, field: str) -> Any:
        return self._values[key].get(field, False) if self._alive(key) else False

    def _hmget(self, key: str, *fields: str) -> Any:
        row = self._values[key] if self._alive(key) else {}
        return self._table([row.get(field, False) for field in fields])

    def _hset(self, key: str, *pairs: str) -> int:
        self._at(key, dict).update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(pairs) // 2

    def _hincrby(self, key: str, field: str, amount: str) -> int:
        row = self._at(key, dict)
        row[field] = str(int(row.get(field, "0")) + int(amount))
        return int(row[field])

    def _hdel(self, key: str, field: str) -> int:
        return int(self._at(key, dict).pop(field, None) is not None)

    def _hgetall(self, key: str) -> Any:
        row = self._values[key] if self._alive(key) else {}
        return self._table([part for pair in row.items() for part in pair])

    def _sadd(self, key: str, member: str) -> int:
        self._at(key, dict)[member] = True
        return 1

    def _smembers(self, key: str) -> Any:
        return self._table(list(self._at(key, dict)))

    def _zadd(self, key: str, score: str, member: str) -> int:
        self._at(key, dict)[member] = float(score)
        return 1

    def _zrem(self, key: str, member: str) -> int:
        return int(self._at(key, dict).pop(member, None) is not None)

    def _zcard(self, key: str) -> int:
        return len(self._at(key, dict))

    def _zrangebyscore(self, key: str, low: str, high: str, *limit: str) -> Any:
        assert low == "-inf"
        found = sorted(
            (score, name) for name, score in self._at(key, dict).items() if score <= float(high)
        )
        names = [name for _, name in found]
        if limit:
            begin, count = int(limit[1]), int(limit[2])
            names = names[begin : begin + count]
        return self._table(names)

    def _xadd(self, key: str, name: str, *fields: str) -> str:
        assert name == "*"
        self._entries += 1
        entry = f"{self.now_ms}-{self._entries}"
        self._at(key, dict)[entry] = fields
        return entry

    def _xlen(self, key: str) -> int:
        return len(self._at(key, dict))

    def _xdel(self, key: str, entry: str) -> int:
        return int(self._at(key, dict).pop(entry, None) is not None)

    def _xrange(self, key: str, low: str, high: str, *count: str) -> Any:
        return self._rows(list(self._at(key, dict).items()), count)

    def _xrevrange(self, key: str, high: str, low: str, *count: str) -> Any:
        return self._rows(list(reversed(self._at(key, dict).items())), count)

    def _rows(self, rows: list[tuple[str, tuple[str, ...]]], count: tuple[str, ...]) -> Any:
        kept = rows[: int(count[1])] if count else rows
        return self._table(
            [self._table([entry, self._table(list(fields))]) for entry, fields in kept]
        )


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float):
        return format(value, ".17g")
    return str(value)
