"""A model of the store in virtual time that runs the limiter's script as it ships: Lua 5.1 through
`lupa`, on plain Python data.

It has the commands that the script uses, with the meaning that they have in Redis, and no others.
Keys expire by the model's own time. It serves simulations and benchmarks; services run on a real
store.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from lupa import lua51


class StoreModel:
    """Keys and values in memory; `now_ms` is the model's time, which its owner moves.

    A method `_command` is the Redis command of that name: texts in, and a Lua value out.
    """

    def __init__(self) -> None:
        self.now_ms = 0
        self._values: dict[str, Any] = {}
        self._expires_ms: dict[str, int] = {}
        self._added_entries = 0
        self._scripts: dict[str, Callable[..., Any]] = {}
        self._lua = lua51.LuaRuntime(unpack_returned_tuples=True, encoding="utf-8")
        self._table = self._lua.table_from
        lua_globals = self._lua.globals()
        lua_globals.redis = self._table({"call": self._call})
        lua_globals.cjson = self._table({"decode": self._decode, "encode": self._encode})

    def eval(self, script: str, keys: Sequence[str], arguments: Sequence[object]) -> list[Any]:
        """Run a script; returns its reply as redis-py does, with texts as bytes."""
        run = self._scripts.get(script)
        if run is None:
            run = self._scripts[script] = self._lua.eval(f"function(KEYS, ARGV) {script} end")
        reply = run(self._table(list(keys)), self._table([str(part) for part in arguments]))
        return [part.encode() if isinstance(part, str) else part for part in reply.values()]

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
            raise NotImplementedError(f"the store model does not have the command {command}")
        return method(*(_text(part) for part in arguments))

    def _value(self, key: str) -> dict[str, Any]:
        """The hash, set, sorted set or stream of a key; an empty one is made if there is none."""
        self._is_alive(key)
        value: dict[str, Any] = self._values.setdefault(key, {})
        return value

    def _is_alive(self, key: str) -> bool:
        """Whether a key exists; deletes it if it has expired."""
        if self._expires_ms.get(key, self.now_ms + 1) <= self.now_ms:
            self._del(key)
        return key in self._values

    def _time(self) -> Any:
        return self._table([self.now_ms // 1000, self.now_ms % 1000 * 1000])

    def _get(self, key: str) -> Any:
        return self._values[key] if self._is_alive(key) else False

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
        return int(self._is_alive(key))

    def _pexpire(self, key: str, milliseconds: str) -> int:
        self._expires_ms[key] = self.now_ms + int(milliseconds)
        return 1

    def _incrby(self, key: str, amount: str) -> int:
        value = int(self._values[key] if self._is_alive(key) else 0) + int(amount)
        self._values[key] = str(value)
        return value

    def _hget(self, key: str, field: str) -> Any:
        return self._values[key].get(field, False) if self._is_alive(key) else False

    def _hmget(self, key: str, *fields: str) -> Any:
        row = self._values[key] if self._is_alive(key) else {}
        return self._table([row.get(field, False) for field in fields])

    def _hset(self, key: str, *pairs: str) -> int:
        self._value(key).update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(pairs) // 2

    def _hincrby(self, key: str, field: str, amount: str) -> int:
        row = self._value(key)
        row[field] = str(int(row.get(field, "0")) + int(amount))
        return int(row[field])

    def _hdel(self, key: str, field: str) -> int:
        return int(self._value(key).pop(field, None) is not None)

    def _hgetall(self, key: str) -> Any:
        row = self._values[key] if self._is_alive(key) else {}
        return self._table([part for pair in row.items() for part in pair])

    def _sadd(self, key: str, member: str) -> int:
        self._value(key)[member] = True
        return 1

    def _smembers(self, key: str) -> Any:
        return self._table(list(self._value(key)))

    def _zadd(self, key: str, score: str, member: str) -> int:
        self._value(key)[member] = float(score)
        return 1

    def _zrem(self, key: str, member: str) -> int:
        return int(self._value(key).pop(member, None) is not None)

    def _zcard(self, key: str) -> int:
        return len(self._value(key))

    def _zrangebyscore(self, key: str, low: str, high: str, *limit: str) -> Any:
        assert low == "-inf"
        scores = self._value(key).items()
        by_score = sorted((score, name) for name, score in scores if score <= float(high))
        names = [name for _, name in by_score]
        if limit:
            begin, count = int(limit[1]), int(limit[2])
            names = names[begin : begin + count]
        return self._table(names)

    def _xadd(self, key: str, name: str, *fields: str) -> str:
        assert name == "*"
        self._added_entries += 1
        entry = f"{self.now_ms}-{self._added_entries}"
        self._value(key)[entry] = fields
        return entry

    def _xlen(self, key: str) -> int:
        return len(self._value(key))

    def _xdel(self, key: str, entry: str) -> int:
        return int(self._value(key).pop(entry, None) is not None)

    def _xrange(self, key: str, low: str, high: str, *count: str) -> Any:
        return self._entries(list(self._value(key).items()), count)

    def _xrevrange(self, key: str, high: str, low: str, *count: str) -> Any:
        return self._entries(list(reversed(self._value(key).items())), count)

    def _entries(self, rows: list[tuple[str, tuple[str, ...]]], count: tuple[str, ...]) -> Any:
        """Entries of a stream as Lua tables of id and fields; `count` is `COUNT n` or empty."""
        if count:
            rows = rows[: int(count[1])]
        return self._table(
            [self._table([entry, self._table(list(fields))]) for entry, fields in rows]
        )


def _text(value: Any) -> str:
    """A Lua value as the text that Redis would be sent."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float):
        return format(value, ".17g")
    return str(value)
