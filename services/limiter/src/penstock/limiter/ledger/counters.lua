-- Counters: whether one rule of a path allows an amount, and how rates and budgets move in time.

local ROLLING_STEPS = 60

-- Limits of the path's counters that operators have set, by key.
local function operator_limits(path)
  local by_key, keys = {}, {}
  if #path == 0 then
    return by_key
  end
  for i, counter in ipairs(path) do
    keys[i] = counter[KEY]
  end
  local limits = redis.call('HMGET', PREFIX .. 'limits', unpack(keys))
  for i, key in ipairs(keys) do
    if limits[i] then
      by_key[key] = limits[i]
    end
  end
  return by_key
end

local function limit_of(counter, limits)
  local limit = limits[counter[KEY]]
  return limit and tonumber(limit) or counter[LIMIT]
end

-- Time until all that a rate has spent will be refilled, in microseconds.
local function backlog_us(counter)
  return math.max(number_or_zero(redis.call('GET', counter[KEY])) - now_us, 0)
end

-- Spends units of a rate, or gives them back if `units` is negative: moves its TAT.
local function spend_rate(counter, limit, units)
  local interval_us = counter[PERIOD_US] / limit
  local tat_us = math.max(number_or_zero(redis.call('GET', counter[KEY])), now_us)
    + math.ceil(units * interval_us)
  if tat_us < now_us then
    tat_us = now_us
  end
  local expiry_ms = math.ceil((tat_us - now_us) / 1000) + 1000
  redis.call('SET', counter[KEY], int(tat_us), 'PX', int(expiry_ms))
end

-- End of a calendar window that starts at `window`: the caller's present one or the one after.
local function window_end_ms(counter, window)
  return window == counter[WINDOW_START_MS] and counter[WINDOW_END_MS]
    or counter[NEXT_WINDOW_END_MS]
end

-- The present step of a rolling window; nil for other kinds.
local function rolling_step(counter)
  if counter[KIND] == 'rolling' then
    return math.floor(now_ms / math.floor(counter[WINDOW_LENGTH_MS] / ROLLING_STEPS))
  end
  return nil
end

local function enlist_budget(key)
  redis.call('SADD', PREFIX .. 'counters', key)
end

local function advance_calendar_window(counter)
  local key, window = counter[KEY], counter[WINDOW_START_MS]
  if now_ms >= counter[WINDOW_END_MS] then
    window = counter[WINDOW_END_MS]
  end
  if now_ms < counter[WINDOW_START_MS] or now_ms >= counter[NEXT_WINDOW_END_MS] then
    return nil
  end
  local known = redis.call('HGET', key, 'w')
  if not known then
    enlist_budget(key)
  end
  if number_or_zero(known) ~= window then
    redis.call('HSET', key, 'w', int(window), 'c', 0, 'h', 0, 'a', 0)
  end
  return window
end

local function advance_rolling_window(counter)
  local key, present = counter[KEY], rolling_step(counter)
  local oldest = redis.call('HGET', key, 'o')
  if not oldest then
    redis.call('HSET', key, 'o', int(present), 'w', 0)
    enlist_budget(key)
    return 0
  end
  oldest = tonumber(oldest)
  local first_kept = present - ROLLING_STEPS
  for step = oldest, math.min(first_kept, oldest + 2 * ROLLING_STEPS) - 1 do
    local field = 'b' .. int(step)
    local spent = hash_number(key, field)
    if spent ~= 0 then
      book_entry(key, 0, -spent, 0)
    end
    redis.call('HDEL', key, field)
  end
  if first_kept > oldest then
    redis.call('HSET', key, 'o', int(first_kept))
  end
  return 0
end

-- Moves a budget to its present window. Returns the window's start (0 for a rolling one), or nil if
-- the caller's windows are stale.
local function advance_window(counter)
  if counter[KIND] == 'calendar' then
    return advance_calendar_window(counter)
  end
  return advance_rolling_window(counter)
end

-- Milliseconds until a budget's window ends, or until the oldest step of a rolling one leaves it.
local function budget_frees_in_ms(counter, window)
  if counter[KIND] == 'calendar' then
    return window_end_ms(counter, window) - now_ms
  end
  local step_ms = math.floor(counter[WINDOW_LENGTH_MS] / ROLLING_STEPS)
  return math.max((hash_number(counter[KEY], 'o') + ROLLING_STEPS + 1) * step_ms - now_ms, 1)
end

local function check_rate(counter, amount, limit)
  local burst = counter[BURST]
  local interval_us = counter[PERIOD_US] / limit
  local room_us = burst * interval_us - backlog_us(counter)
  local available = math.max(math.floor(room_us / interval_us), 0)
  if amount > burst then
    return NEVER, 0, available, limit, 0, available
  end
  if amount > 0 and amount * interval_us > room_us then
    local retry_ms = math.ceil((amount * interval_us - room_us) / 1000)
    return RATE_LIMITED, retry_ms, available, limit, 0, available
  end
  return ALLOWED, 0, available, limit, 0, available
end

-- Protection levels: how much of a budget is kept for more urgent calls.
--
-- A window is divided into 48 slices. The demand of each priority (1 to 4, 4 is the most urgent) is
-- added up in the present slice; when a slice ends, its demand joins a sum of earlier slices that
-- fades by an eighth each slice, and its length joins the time that this sum stands for. Demand
-- over time is a rate. 1.5 times the rate of the more urgent priorities, for the time that the
-- window has left, is protected for them. A rolling window has no end and looks a quarter of its
-- length ahead.
local SLICES, SLICES_REMEMBERED, MAX_SLICES_FADED, SAFETY_FACTOR = 48, 8, 64, 1.5
local MOST_URGENT = 4

local function faded(sum)
  return math.floor(sum * (SLICES_REMEMBERED - 1) / SLICES_REMEMBERED)
end

-- Ends the slice `last` (nil if there was none) and all that have passed since.
local function end_slices(key, slice, last, slice_ms)
  local passed = last and math.min(slice - number_or_zero(last), MAX_SLICES_FADED) or 0
  local observed_ms = last and hash_number(key, 'v') + slice_ms or 0
  for _ = 2, passed do
    observed_ms = faded(observed_ms) + slice_ms
  end
  for priority = 1, MOST_URGENT do
    local sum = faded(hash_number(key, 'e' .. priority)) + hash_number(key, 'd' .. priority)
    for _ = 2, passed do
      sum = faded(sum)
    end
    redis.call('HSET', key, 'e' .. priority, int(sum), 'd' .. priority, 0)
  end
  redis.call('HSET', key, 'i', int(slice), 'v', int(faded(observed_ms)))
end

-- Records what a call of a priority asks for. Returns the present slice and a slice's length.
local function record_demand(key, window_ms, priority, amount)
  local slice_ms = math.max(math.floor(window_ms / SLICES), 1000)
  local slice = math.floor(now_ms / slice_ms)
  local last = redis.call('HGET', key, 'i')
  if number_or_zero(last) ~= slice then
    end_slices(key, slice, last, slice_ms)
  end
  if amount > 0 then
    redis.call('HINCRBY', key, 'd' .. priority, int(amount))
  end
  return slice, slice_ms
end

-- What calls that are more urgent than `priority` are forecast to need in the next `left_ms`.
local function protected_amount(key, priority, left_ms, slice, slice_ms)
  local demand = 0
  for urgent = priority + 1, MOST_URGENT do
    demand = demand + hash_number(key, 'd' .. urgent) + hash_number(key, 'e' .. urgent)
  end
  if demand == 0 then
    return 0
  end
  local present_ms = math.max(now_ms - slice * slice_ms, math.floor(slice_ms / 2))
  return math.floor(SAFETY_FACTOR * demand * left_ms / (hash_number(key, 'v') + present_ms))
end

-- Records the demand on an adaptive budget. Returns what is protected from the priority, and
-- milliseconds until the present slice ends.
local function protect(counter, window, priority, demand)
  local key, window_ms, left_ms = counter[KEY], counter[WINDOW_LENGTH_MS], nil
  if counter[KIND] == 'calendar' then
    window_ms = counter[WINDOW_END_MS] - counter[WINDOW_START_MS]
    left_ms = window_end_ms(counter, window) - now_ms
  else
    left_ms = math.floor(window_ms / 4)
  end
  local slice, slice_ms = record_demand(key, window_ms, priority, demand)
  local protected = protected_amount(key, priority, left_ms, slice, slice_ms)
  return protected, (slice + 1) * slice_ms - now_ms
end

local function check_budget(counter, amount, limit, priority, demand)
  local window = advance_window(counter)
  if not window then
    return STALE_WINDOWS, 0, 0, limit, 0, 0
  end
  local key = counter[KEY]
  local unspent = limit - hash_number(key, 'c') - hash_number(key, 'h')
  local protected, slice_ends_in_ms = 0, 0
  if counter[IS_ADAPTIVE] == 1 then
    protected, slice_ends_in_ms = protect(counter, window, priority, demand)
  end
  if amount > limit then
    return NEVER, 0, unspent, limit, window, unspent
  end
  if amount > 0 and amount > unspent then
    local retry_ms = budget_frees_in_ms(counter, window)
    return BUDGET_EXHAUSTED, retry_ms, unspent, limit, window, unspent
  end
  local available = unspent - protected
  if amount > 0 and amount > available then
    return SHED, slice_ends_in_ms, available, limit, window, unspent
  end
  return ALLOWED, 0, available, limit, window, unspent
end

-- Checks whether a counter allows an amount. `demand` is what the call asks for of an adaptive
-- budget, by which later calls are forecast. Returns verdict, milliseconds after which trying again
-- may help, available to this priority, limit, start of the window, available to the most urgent.
local function check(counter, amount, limits, priority, demand)
  local limit = limit_of(counter, limits)
  if counter[KIND] == 'rate' then
    return check_rate(counter, amount, limit)
  end
  return check_budget(counter, amount, limit, priority, demand)
end

-- The highest alert share of a budget's limit that it has newly reached, in thousandths; 0 if none.
local function newly_reached_alert(counter, limit)
  local shares = counter[ALERT_SHARES]
  if counter[KIND] == 'rate' or #shares == 0 then
    return 0
  end
  local key = counter[KEY]
  local used = hash_number(key, 'c') + hash_number(key, 'h')
  local before, level = hash_number(key, 'a'), 0
  for i, share in ipairs(shares) do
    if used >= share * limit then
      level = i
    end
  end
  if level == before then
    return 0
  end
  redis.call('HSET', key, 'a', level)
  return level > before and math.floor(shares[level] * 1000 + 0.5) or 0
end

-- Whether so little of a strict budget is left that it is not leased.
local function is_tight(counter, limit, unspent)
  return counter[KIND] ~= 'rate' and counter[IS_EXPECTED] == 0 and unspent * 10 < limit
end

return {
  MOST_URGENT = MOST_URGENT,
  operator_limits = operator_limits,
  limit_of = limit_of,
  spend_rate = spend_rate,
  backlog_us = backlog_us,
  window_end_ms = window_end_ms,
  rolling_step = rolling_step,
  advance_window = advance_window,
  check = check,
  newly_reached_alert = newly_reached_alert,
  is_tight = is_tight,
}
