-- Leases: `renew` books what a lease has spent since its last renewal and fills it up again.
-- (`reserve` grants a lease, `settle` returns it.)

-- What a lease has spent since its last renewal, and which part of that it held, by dimension.
-- Takes that part from what the lease holds.
local function spend_lease(lease, spent)
  local fresh, from_lease = { 0, 0, 0 }, { 0, 0, 0 }
  for d = 1, 3 do
    fresh[d] = math.max(spent[d] - lease.spent[d], 0)
    from_lease[d] = math.min(fresh[d], lease.maximum[d])
    if lease.maximum[d] < UNBOUNDED then
      lease.maximum[d] = lease.maximum[d] - from_lease[d]
    end
    lease.spent[d] = math.max(lease.spent[d], spent[d])
  end
  return fresh, from_lease
end

-- Books what a lease has spent on its i-th counter.
local function book_spent(lease, i, counter, fresh, from_lease)
  if counter[KIND] ~= 'rate' then
    local d = counter[DIMENSION] + 1
    holds.book(lease, i, counter, fresh[d], -from_lease[d])
  end
end

-- By how much the i-th counter lets a lease grow that wants to grow by `wanted`, which may be below
-- 0. A lease whose calendar window has ended keeps what it holds. Returns this, milliseconds after
-- which trying again may help, and what is available.
local function allowed_growth(lease, i, counter, wanted, renewal)
  local is_current = counter[KIND] ~= 'calendar'
    or counters.advance_window(counter) == lease.windows[i]
  local demand = renewal.fresh[counter[DIMENSION] + 1]
  local verdict, retry_ms, available, limit, _, unspent =
    counters.check(counter, 0, renewal.limits, renewal.priority, demand)
  if not is_current or verdict == STALE_WINDOWS then
    return 0, retry_ms, available
  end
  if counter[IS_SHADOW] == 1 then
    return wanted, retry_ms, available
  end
  local growth = math.min(wanted, math.max(math.floor(available * renewal.share), 0))
  if counters.is_tight(counter, limit, unspent) then
    growth = math.min(growth, 0)
  end
  return growth, retry_ms, available
end

-- Takes a lease's growth, which may be below 0, from every counter of its path.
local function take_growth(lease, growth, limits)
  local is_counted = { false, false, false }
  for i, counter in ipairs(lease.path) do
    local d = counter[DIMENSION] + 1
    local amount = math.max(growth[d], -lease.maximum[d])
    if amount ~= 0 and lease.maximum[d] < UNBOUNDED then
      holds.take(lease, i, counter, limits, amount)
    end
    is_counted[d] = true
  end
  for d = 1, 3 do
    if is_counted[d] and lease.maximum[d] < UNBOUNDED then
      lease.maximum[d] = math.max(lease.maximum[d] + growth[d], 0)
    end
  end
end

local function save_renewed(id, lease)
  local maximum = cjson.encode(lease.maximum)
  local spent = cjson.encode(lease.spent)
  redis.call('HSET', lease.key, 'm', maximum, 'e', maximum, 'l', maximum, 's', spent)
  redis.call('ZADD', HOLDS, int(now_ms + lease.ttl_ms), id)
  write_entry('renew', id)
end

-- Books what a lease has spent since its grant (`spent`) and fills it up to `wanted`, as far as its
-- share of every counter goes. Reply: verdict, index of the first counter with nothing available
-- (0: none), milliseconds after which trying again may help, available, the lease's three amounts,
-- then what `holds.with_alerts` adds.
local function renew(id, spent, wanted, share, priority)
  local lease = holds.read(id)
  if not lease or not lease.is_open or redis.call('EXISTS', PREFIX .. 'drained') == 1 then
    return { BUDGET_EXHAUSTED, 0, 0, '0', '0', '0', '0' }
  end
  local limits, growth = counters.operator_limits(lease.path), { 0, 0, 0 }
  local fresh, from_lease = spend_lease(lease, spent)
  for d = 1, 3 do
    growth[d] = wanted[d] - lease.maximum[d]
  end
  local renewal = { fresh = fresh, limits = limits, priority = priority, share = share }
  local empty, empty_retry_ms, empty_available = 0, 0, 0
  for i, counter in ipairs(lease.path) do
    local d = counter[DIMENSION] + 1
    book_spent(lease, i, counter, fresh, from_lease)
    local allowed, retry_ms, available = allowed_growth(lease, i, counter, growth[d], renewal)
    growth[d] = allowed
    if available <= 0 and empty == 0 and counter[IS_SHADOW] == 0 then
      empty, empty_retry_ms, empty_available = i, retry_ms, available
    end
  end
  take_growth(lease, growth, limits)
  save_renewed(id, lease)
  local reply = { ALLOWED, empty, empty_retry_ms, int(empty_available) }
  for d = 1, 3 do
    reply[#reply + 1] = int(lease.maximum[d])
  end
  return holds.with_alerts(reply, lease, limits, empty)
end

return { renew = renew }
