"""The cold-start queues of all routers as one, through the store: which models a scaler looks
after, and how many calls wait at each router.

A scaler asks one router; every other opens its queue for the same models when it next reads what is
shared, and its calls count in what the scaler is told. The registry exchanges at each heartbeat; a
router that dies is forgotten with its lease.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from penstock.router.instances.cold_start_queue import ColdStartQueue
from redis.asyncio.client import Pipeline

SCALED = "penstock:{router}:scaled"
WAITING = "penstock:{router}:waiting"
EXCHANGE = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i = 4, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], 'GT', now + ARGV[i + 1], ARGV[i])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('HSET', KEYS[2], ARGV[1], cjson.encode({now + ARGV[2], ARGV[3]}))
local scaled = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 2, #scaled, 2 do scaled[i] = scaled[i] - now end
local others, rows = {}, redis.call('HGETALL', KEYS[2])
for i = 1, #rows, 2 do
  local row = cjson.decode(rows[i + 1])
  if row[1] <= now then redis.call('HDEL', KEYS[2], rows[i])
  elseif rows[i] ~= ARGV[1] then others[#others + 1] = row[2] end
end
return {scaled, others}
"""
"""Say who waits here and which models a scaler has asked about here, and read the same of the
others; the store tells the time.
"""


def ask_exchange(pipe: Pipeline, router: str, lease_ms: int, queue: ColdStartQueue) -> None:
    """Tell the other routers of this one's queue, as part of a pipeline; its reply is to `learn`
    from.
    """
    scaled_here = [
        argument
        for model, left_s in queue.scaled_for_s().items()
        for argument in (model, str(round(left_s * 1e3)))
    ]
    own = json.dumps(queue.waiting_here())
    pipe.eval(EXCHANGE, 2, SCALED, WAITING, router, str(lease_ms), own, *scaled_here)


def learn(reply: Sequence[Any], queue: ColdStartQueue) -> None:
    """Take in what the others have said."""
    scaled, others = reply
    names = [text(name) for name in scaled[::2]]
    waiting: Counter[str] = Counter()
    for row in others:
        waiting.update(json.loads(row))
    left_s = [int(left) / 1e3 for left in scaled[1::2]]
    queue.learn_of_others(dict(zip(names, left_s, strict=True)), waiting)


def text(value: bytes | str) -> str:
    """A reply of the store as text, whatever the client's `decode_responses`."""
    return value.decode() if isinstance(value, bytes) else value
