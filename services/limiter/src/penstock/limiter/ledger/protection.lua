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

return {
  MOST_URGENT = MOST_URGENT,
  record_demand = record_demand,
  protected_amount = protected_amount,
}
