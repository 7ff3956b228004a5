"""The scripts by which the store keeps jobs. Each change is one script, and repeating one that was
answered too late changes nothing.

KEYS of every script: the job's own hash. Fields of it: `request`, `principal`, `organisation`,
`book` and `key` (where it is counted), `token` and `run` (keys that name it), `callback`,
`priority`, `state`, `submitted`, `deadline`, `attempts` (which is also the fence: the attempt that
may end the job), `outcome`, `ended`, `ended_by` (a fence; empty for a cancellation) and `ends`.

What an organisation keeps is its book, under `penstock:{jobs}:of:ORGANISATION:`. Organisations and
API keys are percent-encoded there, so no separator stands in them.

- `open`, `open:KEY`: ids of jobs that have not ended, of the organisation and of one API key, and
  `ended`: of those that have; sorted by when the job's hash expires;
- `bytes`: bytes of each job, and their sums in the fields `open` and `ended`.
"""

from __future__ import annotations

ACCEPTED, KNOWN, TOO_MANY, TOO_MANY_OF_KEY, TOO_LARGE = range(5)
"""Replies of SUBMIT: the job is new; it was submitted before; refused."""

SUPERSEDED, ENDED_BEFORE, ENDED_NOW = -1, 0, 1
"""Replies of END."""

SHARED = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local JOB = 'penstock:{jobs}:job:'
-- Bytes that a job needs beside its request or its result, about.
local OVERHEAD = 1024

local function bytes_of(book, field)
  return tonumber(redis.call('HGET', book .. 'bytes', field) or 0)
end

-- Counts a job that joins a list with its bytes, or that leaves it.
local function join(book, list, id, bytes, expires)
  redis.call('ZADD', book .. list, expires, id)
  redis.call('HSET', book .. 'bytes', id, bytes)
  redis.call('HINCRBY', book .. 'bytes', list, bytes)
end

local function leave(book, list, id)
  redis.call('ZREM', book .. list, id)
  redis.call('HINCRBY', book .. 'bytes', list, -bytes_of(book, id))
  redis.call('HDEL', book .. 'bytes', id)
end

-- Forgets the jobs of a list whose hashes have expired.
local function forget_expired(book, list)
  local expired = redis.call('ZRANGEBYSCORE', book .. list, '-inf', now, 'LIMIT', 0, 100)
  for _, id in ipairs(expired) do
    leave(book, list, id)
  end
end

local function forget_result(book, id)
  local token, run = unpack(redis.call('HMGET', JOB .. id, 'token', 'run'))
  if token and token ~= '' then
    redis.call('DEL', token)
  end
  if run and run ~= '' then
    redis.call('SREM', run, id)
  end
  redis.call('DEL', JOB .. id)
  leave(book, 'ended', id)
end

-- Forgets the results that were kept longest until `room` more bytes fit. Whether they do; where
-- open jobs leave no room, no result is forgotten.
local function make_room(book, room, max_bytes)
  local open = bytes_of(book, 'open')
  if open + room > max_bytes then
    return false
  end
  while open + bytes_of(book, 'ended') + room > max_bytes do
    local oldest = redis.call('ZRANGE', book .. 'ended', 0, 0)[1]
    if not oldest then
      return false
    end
    forget_result(book, oldest)
  end
  return true
end
"""

SUBMIT = (
    SHARED
    + """
-- KEYS: job, stream, token, run. ARGV: id, request, principal, organisation, API key, callback,
-- priority, deadline in ms, keep in s, token given, run given, most open jobs of the organisation,
-- of the key, most bytes, book.
local id, request, key, book = ARGV[1], ARGV[2], ARGV[5], ARGV[15]
local deadline, keep_ms = tonumber(ARGV[8]), ARGV[9] * 1000
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {1, id}
end
local known = ARGV[10] == '1' and redis.call('GET', KEYS[3])
if known then
  return {1, known}
end
forget_expired(book, 'open')
forget_expired(book, 'ended')
redis.call('ZREMRANGEBYSCORE', book .. 'open:' .. key, '-inf', now)
if redis.call('ZCARD', book .. 'open') >= tonumber(ARGV[12]) then
  return {2, ''}
end
if redis.call('ZCARD', book .. 'open:' .. key) >= tonumber(ARGV[13]) then
  return {3, ''}
end
local bytes = #request + OVERHEAD
if not make_room(book, bytes, tonumber(ARGV[14])) then
  return {4, ''}
end
local expires = now + deadline + keep_ms
redis.call('HSET', KEYS[1], 'request', request, 'principal', ARGV[3],
  'organisation', ARGV[4], 'book', book, 'key', key, 'callback', ARGV[6], 'priority', ARGV[7],
  'token', ARGV[10] == '1' and KEYS[3] or '', 'run', ARGV[11] == '1' and KEYS[4] or '',
  'state', 1, 'submitted', now, 'deadline', now + deadline, 'attempts', 0)
redis.call('PEXPIREAT', KEYS[1], expires)
join(book, 'open', id, bytes, expires)
redis.call('ZADD', book .. 'open:' .. key, expires, id)
redis.call('PEXPIRE', book .. 'open:' .. key, deadline + keep_ms + 604800000)
redis.call('XADD', KEYS[2], '*', 'id', id)
if ARGV[10] == '1' then
  redis.call('SET', KEYS[3], id, 'PX', deadline + keep_ms)
end
if ARGV[11] == '1' then
  redis.call('SADD', KEYS[4], id)
  redis.call('PEXPIRE', KEYS[4], deadline + keep_ms)
end
return {0, id}
"""
)

BEGIN = """
-- ARGV: channel, id. Counts an attempt. Reply: nothing where the job is not there or has ended;
-- otherwise the attempt and the time.
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= '1' and state ~= '2' then
  return {}
end
redis.call('HSET', KEYS[1], 'state', 2)
local attempt = redis.call('HINCRBY', KEYS[1], 'attempts', 1)
redis.call('PUBLISH', ARGV[1], ARGV[2])
local time = redis.call('TIME')
return {attempt, tostring(time[1] * 1000 + math.floor(time[2] / 1000))}
"""

END = (
    SHARED
    + """
-- KEYS: job, callbacks. ARGV: channel, id, state, outcome, keep in s, fence (empty: whichever
-- attempt runs), most bytes.
local id, fence, keep_ms = ARGV[2], ARGV[6], ARGV[5] * 1000
local state, attempts, ended_by, book, key, callback =
  unpack(redis.call('HMGET', KEYS[1], 'state', 'attempts', 'ended_by', 'book', 'key', 'callback'))
if state ~= '1' and state ~= '2' then
  return fence ~= '' and ended_by == fence and 1 or 0
end
if fence ~= '' and fence ~= attempts then
  return -1
end
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'outcome', ARGV[4], 'ended', now, 'ended_by', fence)
redis.call('HDEL', KEYS[1], 'request')
redis.call('HINCRBY', KEYS[1], 'ends', 1)
redis.call('PEXPIRE', KEYS[1], keep_ms)
leave(book, 'open', id)
redis.call('ZREM', book .. 'open:' .. key, id)
make_room(book, #ARGV[4] + OVERHEAD, tonumber(ARGV[7]))
join(book, 'ended', id, #ARGV[4] + OVERHEAD, now + keep_ms)
redis.call('PUBLISH', ARGV[1], id)
if callback ~= '' and fence ~= '' then
  redis.call('XADD', KEYS[2], '*', 'id', id)
end
return 1
"""
)
