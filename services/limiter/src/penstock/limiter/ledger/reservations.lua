-- Reservations: `reserve` makes a hold (a call's or a lease), `extend` enlarges a call's.

-- Replies of `reserve`: verdict, index of the counter that decided from 1 (0: none), milliseconds
-- after which trying again may help, available, three amounts that are granted, 1 if a strict
-- budget is too tight to be leased, then pairs of a counter's index and an alert share newly
-- reached.
local function refusal(verdict, index, retry_ms, available)
  return { verdict, index, retry_ms, available, '0', '0', '0', 0 }
end

local function grant_of(amounts)
  return { ALLOWED, 0, 0, '0', int(amounts[1]), int(amounts[2]), int(amounts[3]), 0 }
end

-- The reply for an id that has been reserved before; nil for a new one. Deletes a hold that is to
-- be forgotten, so that its id can be used again.
local function repeated_grant(id)
  local key = holds.key_of(id)
  local state, maximum, forget_ms = unpack(redis.call('HMGET', key, 'state', 'm', 'f'))
  if forget_ms and tonumber(forget_ms) <= now_ms then
    redis.call('DEL', key)
    return nil
  end
  return state and grant_of(cjson.decode(maximum)) or nil
end

local function less_spent(amounts, spent)
  local left = {}
  for d = 1, 3 do
    left[d] = math.max(amounts[d] - spent[d], 0)
  end
  return left
end

-- A reservation with a fence: the reply if it needs no new hold, or nil. Otherwise ends what earlier
-- tries hold, and lowers the amounts by what they have spent.
local function take_over(id, reservation)
  local earlier = holds.read(id)
  if not earlier then
    return nil
  end
  if earlier.fence > reservation.fence then
    return refusal(SUPERSEDED, 0, 0, '0')
  elseif earlier.fence == reservation.fence then
    return grant_of(earlier.maximum)
  end
  if earlier.is_open then
    holds.free(id, earlier)
  end
  for _, cost in ipairs({ 'maximum', 'expected', 'minimum' }) do
    reservation[cost] = less_spent(reservation[cost], earlier.spent)
  end
  reservation.spent = earlier.spent
  return nil
end

-- What a reservation needs at least of a counter in dimension `d`.
local function needed_amount(reservation, counter, d)
  if counter[OWN_AMOUNT] >= 0 then
    return counter[OWN_AMOUNT]
  end
  if reservation.is_lease then
    return reservation.minimum[d]
  end
  return counter[IS_EXPECTED] == 1 and reservation.expected[d] or reservation.maximum[d]
end

-- Checks every counter of the path, and lowers a lease's grant to its share of the tightest one.
-- Returns a refusal or nil, the windows of the counters, and whether a strict budget is tight.
local function check_path(reservation, limits, grant)
  local refused, windows, tight = nil, {}, false
  for i, counter in ipairs(reservation.path) do
    local d = counter[DIMENSION] + 1
    local demand = reservation.is_lease and 0 or reservation.expected[d]
    local needed = needed_amount(reservation, counter, d)
    local verdict, retry_ms, available, limit, window, unspent =
      counters.check(counter, needed, limits, reservation.priority, demand)
    windows[i] = window
    if verdict == STALE_WINDOWS then
      return refusal(STALE_WINDOWS, i, 0, int(now_ms)), windows, false
    end
    if counter[DIMENSION] == MICROUSD and reservation.is_unpriced then
      verdict, retry_ms = UNPRICED, 0
    end
    if verdict ~= ALLOWED and counter[IS_SHADOW] == 0 and not refused then
      refused = refusal(verdict, i, retry_ms, int(available))
    end
    if reservation.is_lease then
      grant[d] = math.min(grant[d], reservation.maximum[d])
      if counter[IS_SHADOW] == 0 then
        local share = math.max(math.floor(available * reservation.share), reservation.minimum[d])
        grant[d] = math.min(grant[d], share)
        tight = tight or counters.is_tight(counter, limit, unspent)
      end
    end
  end
  return refused, windows, tight
end

-- Takes what a new hold holds from every counter, and adds alerts to the reply.
local function take_path(hold, limits, reply)
  for i, counter in ipairs(hold.path) do
    local limit = counters.limit_of(counter, limits)
    local amount = holds.held_amount(hold, counter)
    if counter[OWN_AMOUNT] >= 0 then
      amount = counter[OWN_AMOUNT]
    end
    if amount < UNBOUNDED then
      if counter[KIND] == 'rate' then
        counters.spend_rate(counter, limit, amount)
      else
        book_entry(counter[KEY], hold.windows[i], 0, amount)
      end
    end
    local share = counters.newly_reached_alert(counter, limit)
    if share > 0 then
      reply[#reply + 1] = i
      reply[#reply + 1] = share
    end
  end
end

-- The hold that a reservation makes. A lease holds its grant, and all of it stays spent if it
-- expires. An amount that no rule counts is not bounded, and its holder need not ask again.
local function new_hold(reservation, grant, windows)
  return {
    path = reservation.path,
    windows = windows,
    maximum = grant,
    expected = reservation.is_lease and grant or reservation.expected,
    minimum = reservation.is_lease and grant or reservation.minimum,
    spent = reservation.spent,
    ttl_ms = reservation.ttl_ms,
    fence = reservation.fence,
  }
end

-- Holds what a call may cost, or grants a lease a `share` of what is available. A hold without a
-- time to live will not be settled: it is spent at once and not remembered.
local function reserve(
  id, lease, path, maximum, expected, minimum, ttl_ms, priority, unpriced, share, fence
)
  local repeated = fence == 0 and repeated_grant(id)
  if repeated then
    return repeated
  end
  if redis.call('EXISTS', PREFIX .. 'drained') == 1 then
    return refusal(DRAINED, 0, 0, '0')
  end
  local reservation = {
    is_lease = lease == 1,
    path = path,
    maximum = maximum,
    expected = expected,
    minimum = minimum,
    ttl_ms = ttl_ms,
    priority = priority,
    is_unpriced = unpriced == 1,
    share = share,
    fence = fence,
    spent = { 0, 0, 0 },
  }
  repeated = fence > 0 and take_over(id, reservation)
  if repeated then
    return repeated
  end
  local grant = reservation.is_lease and { UNBOUNDED, UNBOUNDED, UNBOUNDED }
    or reservation.maximum
  local limits = counters.operator_limits(path)
  local refused, windows, tight = check_path(reservation, limits, grant)
  if refused then
    return refused
  end
  if reservation.is_lease and tight then
    return { ALLOWED, 0, 0, '0', '0', '0', '0', 1 }
  end
  local hold, reply = new_hold(reservation, grant, windows), grant_of(grant)
  take_path(hold, limits, reply)
  if ttl_ms > 0 then
    if fence > 0 then
      redis.call('DEL', holds.key_of(id))
    end
    holds.save(id, hold, lease, 'open')
    redis.call('ZADD', HOLDS, int(now_ms + ttl_ms), id)
    write_entry('reserve', id)
  end
  return reply
end

-- What an open hold lacks of a new maximum on a counter.
local function missing_amount(hold, counter, maximum)
  return maximum[counter[DIMENSION] + 1] - holds.held_amount(hold, counter)
end

-- The refusal of an extension by a counter; nil if all allow it. The call runs already, so nothing
-- is protected from it.
local function check_extension(hold, maximum, limits)
  for i, counter in ipairs(hold.path) do
    local missing = missing_amount(hold, counter, maximum)
    if missing > 0 and counter[IS_SHADOW] == 0 then
      local verdict, retry_ms, available =
        counters.check(counter, missing, limits, counters.MOST_URGENT, 0)
      if verdict ~= ALLOWED and verdict ~= STALE_WINDOWS then
        return holds.with_alerts({ verdict, i, retry_ms, int(available) }, hold, limits, i)
      end
    end
  end
  return nil
end

-- Enlarges an open hold to a new maximum. Reply: the first four parts of a reply of `reserve`, then
-- what `holds.with_alerts` adds.
local function extend(id, maximum, fence)
  local hold = holds.read(id)
  if hold and hold.fence ~= fence then
    return { SUPERSEDED, 0, 0, '0' }
  end
  if not hold or not hold.is_open then
    return { BUDGET_EXHAUSTED, 0, 0, '0' }
  end
  local limits = counters.operator_limits(hold.path)
  local refused = check_extension(hold, maximum, limits)
  if refused then
    return refused
  end
  for i, counter in ipairs(hold.path) do
    local missing = missing_amount(hold, counter, maximum)
    if missing > 0 then
      holds.take(hold, i, counter, limits, missing)
    end
  end
  for d = 1, 3 do
    hold.maximum[d] = math.max(hold.maximum[d], maximum[d])
    hold.expected[d] = math.max(hold.expected[d], maximum[d])
  end
  local maximum_text, expected_text = cjson.encode(hold.maximum), cjson.encode(hold.expected)
  redis.call('HSET', hold.key, 'm', maximum_text, 'e', expected_text)
  redis.call('ZADD', HOLDS, int(now_ms + hold.ttl_ms), id)
  write_entry('extend', id)
  return holds.with_alerts({ ALLOWED, 0, 0, '0' }, hold, limits, 0)
end

return {
  reserve = reserve,
  extend = extend,
}
