-- Holds: how they are stored, and what happens to those that expire.
--
-- Fields of a hold's hash: `state` (open, expired or done), `kind` (1 lease, 0 call), costs maximum
-- `m`, expected `e` and minimum `l`, `s` what was spent, `p` the path, `w` the window of each of
-- its counters when they were held, `t` milliseconds to live, `f` when an ended hold is
-- forgotten, and `n` the fence of the try that holds it; none where only one may.

-- How long ended holds are remembered; `FENCED`: longer than a router that tries a job stalls.
local SETTLED_KEPT_MS, EXPIRED_KEPT_MS, FENCED_KEPT_MS = 60000, 3600000, 3600000

local function key_of(id)
  return PREFIX .. 'hold:' .. id
end

-- The hold of an id; nil if there is none or it is to be forgotten.
local function read(id)
  local key = key_of(id)
  local fields = redis.call('HMGET', key, 'state', 'm', 'e', 'l', 's', 'w', 'p', 't', 'f', 'n')
  if not fields[1] or (fields[9] and tonumber(fields[9]) <= now_ms) then
    return nil
  end
  return {
    key = key,
    is_open = fields[1] == 'open',
    maximum = cjson.decode(fields[2]),
    expected = cjson.decode(fields[3]),
    minimum = cjson.decode(fields[4]),
    spent = cjson.decode(fields[5]),
    windows = cjson.decode(fields[6]),
    path = cjson.decode(fields[7]),
    ttl_ms = tonumber(fields[8]),
    fence = tonumber(fields[10] or 0),
  }
end

-- Writes a new hold; `kind` and `state` as in the hash.
local function save(id, hold, kind, state)
  redis.call(
    'HSET', key_of(id),
    'state', state,
    'kind', kind,
    'm', cjson.encode(hold.maximum),
    'e', cjson.encode(hold.expected),
    'l', cjson.encode(hold.minimum),
    's', cjson.encode(hold.spent),
    'w', cjson.encode(hold.windows),
    'p', cjson.encode(hold.path),
    't', hold.ttl_ms
  )
  if (hold.fence or 0) > 0 then
    redis.call('HSET', key_of(id), 'n', hold.fence)
  end
end

-- What a hold holds of a counter.
local function held_amount(hold, counter)
  local d = counter[DIMENSION] + 1
  return counter[IS_EXPECTED] == 1 and hold.expected[d] or hold.maximum[d]
end

-- Whether the i-th counter of a hold is still in the window in which it was held.
local function is_in_window(hold, i, counter)
  return counter[KIND] == 'rolling' or hash_number(counter[KEY], 'w') == hold.windows[i]
end

-- Books on the i-th counter of a hold, a budget, if its window is still the same.
local function book(hold, i, counter, committed, held)
  if is_in_window(hold, i, counter) then
    if counter[KIND] == 'rolling' then
      counters.advance_window(counter)
    end
    book_entry(counter[KEY], hold.windows[i], committed, held, counters.rolling_step(counter))
  end
end

-- Holds more of the i-th counter of a hold, or less if `amount` is negative.
local function take(hold, i, counter, limits, amount)
  if counter[KIND] == 'rate' then
    counters.spend_rate(counter, counters.limit_of(counter, limits), amount)
  elseif is_in_window(hold, i, counter) then
    book_entry(counter[KEY], hold.windows[i], 0, amount)
  end
end

-- Marks a hold as ended: `state` and what it spent, remembered for `kept_ms`, or for longer where
-- tries with other fences may follow.
local function finish(key, state, spent, kept_ms, fence)
  if (fence or 0) > 0 then
    kept_ms = FENCED_KEPT_MS
  end
  redis.call('HSET', key, 'state', state, 's', cjson.encode(spent), 'f', int(now_ms + kept_ms))
  redis.call('PEXPIRE', key, kept_ms)
end

-- Books the minimum of a hold that nobody has settled: the input of a call, all of a lease.
local function expire(id, hold)
  for i, counter in ipairs(hold.path) do
    if counter[KIND] ~= 'rate' then
      local minimum = hold.minimum[counter[DIMENSION] + 1]
      book(hold, i, counter, minimum, -held_amount(hold, counter))
    end
  end
  for d = 1, 3 do
    hold.spent[d] = hold.spent[d] + hold.minimum[d]
  end
  finish(hold.key, 'expired', hold.spent, EXPIRED_KEPT_MS, hold.fence)
  write_entry('expire', id)
end

-- Frees what an open hold holds and ends it with what it has booked.
local function free(id, hold)
  local limits = counters.operator_limits(hold.path)
  for i, counter in ipairs(hold.path) do
    take(hold, i, counter, limits, -held_amount(hold, counter))
  end
  finish(hold.key, 'done', hold.spent, SETTLED_KEPT_MS, hold.fence)
  redis.call('ZREM', HOLDS, id)
end

local function expire_due()
  local due = redis.call('ZRANGEBYSCORE', HOLDS, '-inf', int(now_ms), 'LIMIT', 0, 5000)
  for _, id in ipairs(due) do
    redis.call('ZREM', HOLDS, id)
    local hold = read(id)
    if hold then
      expire(id, hold)
    end
  end
end

-- Ends the reply of an operation that knows its path from the hold: pairs of a counter's index and
-- the alert share that it has newly reached, then the keys of the path if the reply names a
-- counter. `decided` is the index of the counter that decided, 0 for none.
local function with_alerts(reply, hold, limits, decided)
  local is_named = decided > 0
  for i, counter in ipairs(hold.path) do
    if counter[KIND] ~= 'rate' and is_in_window(hold, i, counter) then
      local share = counters.newly_reached_alert(counter, counters.limit_of(counter, limits))
      if share > 0 then
        reply[#reply + 1] = i
        reply[#reply + 1] = share
        is_named = true
      end
    end
  end
  if is_named then
    local keys = {}
    for i, counter in ipairs(hold.path) do
      keys[i] = counter[KEY]
    end
    reply[#reply + 1] = cjson.encode(keys)
  end
  return reply
end

return {
  SETTLED_KEPT_MS = SETTLED_KEPT_MS,
  key_of = key_of,
  read = read,
  save = save,
  finish = finish,
  held_amount = held_amount,
  is_in_window = is_in_window,
  book = book,
  take = take,
  free = free,
  expire_due = expire_due,
  with_alerts = with_alerts,
}
