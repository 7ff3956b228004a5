"""The scripts by which the store keeps responses. Each change is one script.

KEYS: the hash of the entries' sizes in bytes, whose field `total` is their sum; the sorted set of
the entries' names by the time at which each was last needed, in milliseconds. ARGV[1]: what the
keys of entries begin with.
"""

from __future__ import annotations

_DROP = """
local function drop(name)
    local size = redis.call('HGET', KEYS[1], name)
    redis.call('DEL', ARGV[1] .. name)
    redis.call('ZREM', KEYS[2], name)
    if size then
        redis.call('HDEL', KEYS[1], name)
        redis.call('HINCRBY', KEYS[1], 'total', -size)
    end
end
"""

SAVE = (
    _DROP
    + """
local ttl_ms, max_bytes = tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms - ttl_ms)) do
    drop(name)
end
for i = 4, #ARGV, 2 do
    local name, value = ARGV[i], ARGV[i + 1]
    local key = ARGV[1] .. name
    local known = redis.call('EXISTS', key) == 1
    if not known and #value > 0 then
        redis.call('SET', key, value)
        local size = #value + #key
        local before = redis.call('HGET', KEYS[1], name) or 0
        redis.call('HSET', KEYS[1], name, size)
        redis.call('HINCRBY', KEYS[1], 'total', size - before)
        known = true
    end
    if known then
        redis.call('PEXPIRE', key, ttl_ms)
        redis.call('ZADD', KEYS[2], now_ms, name)
    end
end
while tonumber(redis.call('HGET', KEYS[1], 'total') or 0) > max_bytes do
    local oldest = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
    if not oldest then break end
    drop(oldest)
end
redis.call('PEXPIRE', KEYS[1], ttl_ms)
redis.call('PEXPIRE', KEYS[2], ttl_ms)
return 1
"""
)
"""ARGV[2]: for how long an entry is kept, in milliseconds. ARGV[3]: bytes that all may have. Then
pairs of a name and a value; an empty value only renews an entry. An entry that is there stays as it
is. What is over the bound goes, least recently needed first.
"""

DELETE = (
    _DROP
    + """
for i = 2, #ARGV do drop(ARGV[i]) end
return 1
"""
)
"""ARGV from 2: names of entries."""
