"""A model of the store in virtual time that runs shipped scripts as they are: Lua 5.1 through
`lupa`, on plain Python data.

It has the commands that services and their scripts use, with the meaning that they have in Redis,
and no others. Keys expire by the model's own time. It serves simulations and benchmarks; services
run on a real store. Bytes are texts here, a character (latin-1) a byte.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lupa import lua51
from penstock.simulation.store_streams import StreamCommands
from penstock.simulation.store_values import (
    OK,
    Hash,
    Members,
    Scores,
    Status,
    StoreError,
    Stream,
)

T = TypeVar("T")
TYPE_NAMES = {str: "string", Hash: "hash", Members: "set", Scores: "zset", Stream: "stream"}


class StoreModel(StreamCommands):
    """Keys and values in memory; `now_ms` is the model's time, which its owner moves.

    A method `_command` is the Redis command of that name: texts in; a number, a text, None or a
    list of these out.

    Attributes:
        published: is told each message of PUBLISH: channel, then text.
    """

    def __init__(self) -> None:
        self.now_ms = 0
        self.published: Callable[[str, str], int] = _nobody_listens
        self._values: dict[str, Any] = {}
        self._expires_ms: dict[str, int] = {}
        self._scripts: dict[str, Callable[..., Any]] = {}
        self._loaded: dict[str, str] = {}
        self._lua = lua51.LuaRuntime(unpack_returned_tuples=True, encoding="latin-1")
        self._table = self._lua.table_from
        lua_globals = self._lua.globals()
        lua_globals.redis = self._table({"call": self._call_of_script})
        lua_globals.cjson = self._table({"decode": self._decode, "encode": self._encode})

    def command(self, name: str, *arguments: str) -> Any:
        """Run a command. Raises StoreError."""
        method = getattr(self, f"_{name.lower()}", None)
        if method is None:
            raise NotImplementedError(f"the store model does not have the command {name}")
        return method(*arguments)

    def eval(self, script: str, keys: Sequence[str], arguments: Sequence[object]) -> list[Any]:
        """Run a script; returns its reply as redis-py does, with texts as bytes."""
        texts = [_bytes_as_text(str(part)) for part in (*keys, *arguments)]
        reply = self._run(_bytes_as_text(script), texts[: len(keys)], texts[len(keys) :])
        return [part.encode("latin-1") if isinstance(part, str) else part for part in reply]

    def peek(self, key: str) -> Any:
        """The value of a key as it is kept, for checks; None if there is none."""
        return self._values[key] if self._is_alive(key) else None

    def all_keys(self) -> list[str]:
        """All keys."""
        return [key for key in list(self._values) if self._is_alive(key)]

    def forget_scripts(self) -> None:
        """Forget what was loaded, as a restart does."""
        self._loaded.clear()

    # Scripts.

    def _run(self, script: str, keys: Sequence[str], arguments: Sequence[str]) -> Any:
        run = self._scripts.get(script)
        if run is None:
            run = self._scripts[script] = self._lua.eval(f"function(KEYS, ARGV) {script}\nend")
        return self._from_lua(run(self._table(list(keys)), self._table(list(arguments))))

    def _eval(self, script: str, count: str, *parts: str) -> Any:
        return self._run(script, parts[: int(count)], parts[int(count) :])

    def _evalsha(self, sha: str, count: str, *parts: str) -> Any:
        if sha not in self._loaded:
            raise StoreError("NOSCRIPT No matching script.")
        return self._eval(self._loaded[sha], count, *parts)

    def _script(self, what: str, script: str) -> str:
        assert what.upper() == "LOAD"
        sha = hashlib.sha1(script.encode("latin-1"), usedforsecurity=False).hexdigest()
        self._loaded[sha] = script
        return sha

    def _call_of_script(self, command: str, *arguments: Any) -> Any:
        return self._to_lua(self.command(command, *(_text(part) for part in arguments)))

    def _to_lua(self, value: Any) -> Any:
        if isinstance(value, list):
            return self._table([self._to_lua(part) for part in value])
        return False if value is None else value

    def _from_lua(self, value: Any) -> Any:
        """A Lua value as a reply; a table ends at its first nil, and numbers lose their part."""
        if lua51.lua_type(value) == "table":
            parts: list[Any] = []
            while (part := value[len(parts) + 1]) is not None:
                parts.append(self._from_lua(part))
            return parts
        if isinstance(value, bool):
            return 1 if value else None
        return int(value) if isinstance(value, float) else value

    def _decode(self, text: str) -> Any:
        return self._json_to_lua(json.loads(text))

    def _json_to_lua(self, value: Any) -> Any:
        if isinstance(value, list):
            return self._table([self._json_to_lua(part) for part in value])
        return value

    def _encode(self, value: Any) -> str:
        return json.dumps(self._json_of(value), separators=(",", ":"), ensure_ascii=False)

    def _json_of(self, value: Any) -> Any:
        if lua51.lua_type(value) == "table":
            return [self._json_of(part) for part in value.values()]
        if isinstance(value, float) and value.is_integer():
            return int(value)
        return value

    # Keys.

    def _is_alive(self, key: str) -> bool:
        """Whether a key exists; deletes it if it has expired."""
        if self._expires_ms.get(key, self.now_ms + 1) <= self.now_ms:
            self._del(key)
        return key in self._values

    def _read(self, key: str, kind: type[T]) -> T:
        """The value of a key, or an empty one that the key does not get."""
        value = self._values[key] if self._is_alive(key) else kind()
        if not isinstance(value, kind):
            raise StoreError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def _edit(self, key: str, kind: type[T]) -> T:
        """The value of a key, made if there is none."""
        value = self._read(key, kind)
        self._values[key] = value
        return value

    def _remove_empty(self, key: str) -> None:
        if not self._values[key]:
            self._del(key)

    def _del(self, *keys: str) -> int:
        for key in keys:
            self._expires_ms.pop(key, None)
        return sum(self._values.pop(key, None) is not None for key in keys)

    def _exists(self, key: str) -> int:
        return int(self._is_alive(key))

    def _type(self, key: str) -> str:
        return TYPE_NAMES[type(self._values[key])] if self._is_alive(key) else "none"

    def _rename(self, key: str, new: str) -> str:
        self._values[new] = self._values.pop(key)
        if key in self._expires_ms:
            self._expires_ms[new] = self._expires_ms.pop(key)
        return OK

    def _scan(self, cursor: str, *options: str) -> Any:
        given = {
            name.upper(): value for name, value in zip(options[::2], options[1::2], strict=True)
        }
        return [
            "0",
            [key for key in self.all_keys() if fnmatch.fnmatchcase(key, given.get("MATCH", "*"))],
        ]

    def _pexpire(self, key: str, milliseconds: str) -> int:
        return self._pexpireat(key, str(self.now_ms + int(milliseconds)))

    def _pexpireat(self, key: str, at_ms: str) -> int:
        if not self._is_alive(key):
            return 0
        self._expires_ms[key] = int(float(at_ms))
        return 1

    # The server.

    def _time(self) -> list[str]:
        return [str(self.now_ms // 1000), str(self.now_ms % 1000 * 1000)]

    def _ping(self) -> str:
        return Status("PONG")

    def _client(self, *_: str) -> str:
        return OK

    def _info(self, *_: str) -> str:
        return "redis_version:7.4.0\r\naof_enabled:1\r\nmaxmemory:0\r\n"

    def _config(self, what: str, name: str) -> list[str]:
        return [name, "everysec"]

    def _waitaof(self, *_: str) -> list[int]:
        return [1, 0]

    def _publish(self, channel: str, text: str) -> int:
        return self.published(channel, text)

    # Texts.

    def _get(self, key: str) -> str | None:
        return self._read(key, str) if self._is_alive(key) else None

    def _mget(self, *keys: str) -> list[str | None]:
        return [self._get(key) for key in keys]

    def _getdel(self, key: str) -> str | None:
        value = self._get(key)
        self._del(key)
        return value

    def _strlen(self, key: str) -> int:
        return len(self._get(key) or "")

    def _set(self, key: str, value: str, *options: str) -> str | None:
        given = [option.upper() for option in options]
        if "NX" in given and self._is_alive(key):
            return None
        self._values[key] = value
        self._expires_ms.pop(key, None)
        self._expire_as(key, given)
        return OK

    def _getex(self, key: str, *options: str) -> str | None:
        self._expire_as(key, [option.upper() for option in options])
        return self._get(key)

    def _expire_as(self, key: str, options: Sequence[str]) -> None:
        """Let a key expire as the options PX or EX say."""
        for name, unit_ms in (("PX", 1), ("EX", 1_000)):
            if name in options:
                self._pexpire(key, str(int(options[options.index(name) + 1]) * unit_ms))

    def _incrby(self, key: str, amount: str) -> int:
        value = int(self._get(key) or 0) + int(amount)
        self._values[key] = str(value)
        return value

    # Hashes.

    def _hget(self, key: str, field: str) -> str | None:
        return self._read(key, Hash).get(field)

    def _hmget(self, key: str, *fields: str) -> list[str | None]:
        row = self._read(key, Hash)
        return [row.get(field) for field in fields]

    def _hset(self, key: str, *pairs: str) -> int:
        self._edit(key, Hash).update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(pairs) // 2

    def _hincrby(self, key: str, field: str, amount: str) -> int:
        row = self._edit(key, Hash)
        row[field] = str(int(row.get(field, "0")) + int(amount))
        return int(row[field])

    def _hdel(self, key: str, *fields: str) -> int:
        if not self._is_alive(key):
            return 0
        row = self._edit(key, Hash)
        gone = sum(row.pop(field, None) is not None for field in fields)
        self._remove_empty(key)
        return gone

    def _hexists(self, key: str, field: str) -> int:
        return int(field in self._read(key, Hash))

    def _hlen(self, key: str) -> int:
        return len(self._read(key, Hash))

    def _hkeys(self, key: str) -> list[str]:
        return list(self._read(key, Hash))

    def _hgetall(self, key: str) -> list[str]:
        return [part for pair in self._read(key, Hash).items() for part in pair]

    # Sets.

    def _sadd(self, key: str, *members: str) -> int:
        self._edit(key, Members).update(dict.fromkeys(members))
        return len(members)

    def _srem(self, key: str, *members: str) -> int:
        return self._take_out(key, Members, members)

    def _smembers(self, key: str) -> list[str]:
        return list(self._read(key, Members))

    def _take_out(self, key: str, kind: type[Any], members: Sequence[str]) -> int:
        if not self._is_alive(key):
            return 0
        value = self._edit(key, kind)
        before = len(value)
        for member in members:
            value.pop(member, None)
        gone = before - len(value)
        self._remove_empty(key)
        return gone

    # Sorted sets.

    def _zadd(self, key: str, score: str, member: str) -> int:
        self._edit(key, Scores)[member] = float(score)
        return 1

    def _zrem(self, key: str, *members: str) -> int:
        return self._take_out(key, Scores, members)

    def _zcard(self, key: str) -> int:
        return len(self._read(key, Scores))

    def _zrange(self, key: str, first: str, last: str, *options: str) -> list[str]:
        scores = self._read(key, Scores)
        return scores.shown(_slice(scores.ranked(), first, last), options)

    def _zrevrange(self, key: str, first: str, last: str, *options: str) -> list[str]:
        scores = self._read(key, Scores)
        return scores.shown(_slice(scores.ranked()[::-1], first, last), options)

    def _zrangebyscore(self, key: str, low: str, high: str, *limit: str) -> list[str]:
        scores = self._read(key, Scores)
        names = [name for name in scores.ranked() if float(low) <= scores[name] <= float(high)]
        begin, count = (int(limit[1]), int(limit[2])) if limit else (0, len(names))
        return names[begin : begin + count]

    def _zremrangebyscore(self, key: str, low: str, high: str) -> int:
        return self._take_out(key, Scores, self._zrangebyscore(key, low, high))


def _nobody_listens(_channel: str, _text: str) -> int:
    return 0


def _slice(names: list[str], first: str, last: str) -> list[str]:
    """Part of a list by first and last index, both included; below 0 counts from the end."""
    end = int(last) % len(names) if names and int(last) < 0 else int(last)
    return names[int(first) : end + 1]


def _bytes_as_text(text: str) -> str:
    return text if text.isascii() else text.encode().decode("latin-1")


def _text(value: Any) -> str:
    """A Lua value as the text that Redis would be sent."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, float):
        return format(value, ".17g")
    return str(value)
