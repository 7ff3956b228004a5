-- Inspection and correction: `usage` shows counters, `adjust` corrects one, `drain` refuses new
-- holds, and `snapshot` gives what a replay of the ledger needs.

-- The state of each counter. Reply: ALLOWED and four numbers a counter (limit, committed, held, end
-- of the window in Unix milliseconds or 0), or STALE_WINDOWS and the time. A rate's committed units
-- are those that have not been refilled yet.
local function usage(path)
  local reply, limits = { ALLOWED }, counters.operator_limits(path)
  for _, counter in ipairs(path) do
    local limit = counters.limit_of(counter, limits)
    local committed, held, ends_ms = 0, 0, 0
    if counter[KIND] == 'rate' then
      committed = math.ceil(counters.backlog_us(counter) / (counter[PERIOD_US] / limit))
    else
      local window = counters.advance_window(counter)
      if not window then
        return { STALE_WINDOWS, int(now_ms) }
      end
      if counter[KIND] == 'calendar' then
        ends_ms = counters.window_end_ms(counter, window)
      end
      committed, held = hash_number(counter[KEY], 'c'), hash_number(counter[KEY], 'h')
    end
    reply[#reply + 1] = int(limit)
    reply[#reply + 1] = int(committed)
    reply[#reply + 1] = int(held)
    reply[#reply + 1] = int(ends_ms)
  end
  return reply
end

local function adjust_rate(counter, amount, is_reset)
  local limit = counters.limit_of(counter, counters.operator_limits({ counter }))
  local interval_us = counter[PERIOD_US] / limit
  local before = math.ceil(counters.backlog_us(counter) / interval_us)
  if is_reset then
    redis.call('DEL', counter[KEY])
  else
    counters.spend_rate(counter, limit, math.max(amount, -before))
  end
  return { ALLOWED, int(before), int(math.ceil(counters.backlog_us(counter) / interval_us)) }
end

-- An operator's correction: adds to what a counter has committed, not below 0, or forgets it if
-- `reset` is 1. Reply: ALLOWED, committed before, committed now; or STALE_WINDOWS and the time.
local function adjust(counter, amount, reset)
  local is_reset = reset == 1
  if counter[KIND] == 'rate' then
    return adjust_rate(counter, amount, is_reset)
  end
  local window = counters.advance_window(counter)
  if not window then
    return { STALE_WINDOWS, int(now_ms) }
  end
  local key = counter[KEY]
  local before = hash_number(key, 'c')
  local change = is_reset and -before or math.max(amount, -before)
  book_entry(key, window, change, 0, counters.rolling_step(counter))
  redis.call('HSET', key, 'a', 0)
  write_entry('correct', '')
  return { ALLOWED, int(before), int(hash_number(key, 'c')) }
end

-- All that a replay needs, at one moment. Reply: the ledger's last and first entry (`0-0` if there
-- is none), the number of sums, each sum's counter and text, then each budget's key and state as
-- "window committed held".
local function snapshot()
  local last = redis.call('XREVRANGE', LEDGER, '+', '-', 'COUNT', 1)[1]
  local first = redis.call('XRANGE', LEDGER, '-', '+', 'COUNT', 1)[1]
  local sums = redis.call('HGETALL', FOLDED)
  local reply = { last and last[1] or '0-0', first and first[1] or '0-0', #sums / 2 }
  for _, part in ipairs(sums) do
    reply[#reply + 1] = part
  end
  for _, key in ipairs(redis.call('SMEMBERS', PREFIX .. 'counters')) do
    local window, committed = hash_number(key, 'w'), hash_number(key, 'c')
    local numbers = { int(window), int(committed), int(hash_number(key, 'h')) }
    reply[#reply + 1] = key
    reply[#reply + 1] = table.concat(numbers, ' ')
  end
  return reply
end

-- Refuses new holds and renewals of an organisation (`on` is 1) or allows them again. Reply: the
-- number of open holds.
local function drain(on)
  if on == 1 then
    redis.call('SET', PREFIX .. 'drained', 1)
  else
    redis.call('DEL', PREFIX .. 'drained')
  end
  return { redis.call('ZCARD', HOLDS) }
end

return {
  usage = usage,
  adjust = adjust,
  drain = drain,
  snapshot = snapshot,
}
