-- Settlements: `settle` ends a call's hold or returns a lease, and books what was spent.

-- Books what was spent under an id that the store does not know, and remembers the id as settled,
-- so that neither a repetition nor the hold itself, coming late, books it again.
local function settle_unknown(id, spent, path, fence)
  local limits, windows = counters.operator_limits(path), {}
  for i, counter in ipairs(path) do
    local amount = spent[counter[DIMENSION] + 1]
    windows[i] = counter[KIND] == 'calendar' and counter[WINDOW_START_MS] or 0
    if counter[KIND] == 'rate' then
      if amount > 0 then
        counters.spend_rate(counter, counters.limit_of(counter, limits), amount)
      end
    elseif counters.advance_window(counter) == windows[i] then
      book_entry(counter[KEY], windows[i], amount, 0, counters.rolling_step(counter))
    end
  end
  local none = { 0, 0, 0 }
  local hold = { maximum = none, expected = none, minimum = none, spent = spent, ttl_ms = 0 }
  hold.fence = fence
  hold.path, hold.windows = path, windows
  holds.save(id, hold, 0, 'done')
  holds.finish(holds.key_of(id), 'done', spent, holds.SETTLED_KEPT_MS, fence)
  write_entry('commit', id)
end

-- Books the difference between what is spent and what the hold has booked, and frees what it holds.
local function book_settlement(hold, spent)
  local limits = counters.operator_limits(hold.path)
  for i, counter in ipairs(hold.path) do
    local d = counter[DIMENSION] + 1
    local held = hold.is_open and holds.held_amount(hold, counter) or 0
    if held >= UNBOUNDED then
      held = 0
    end
    local difference = spent[d] - hold.spent[d]
    if counter[KIND] ~= 'rate' then
      holds.book(hold, i, counter, difference, -held)
    elseif hold.is_open then
      counters.spend_rate(counter, counters.limit_of(counter, limits), difference - held)
    end
  end
end

-- Ends a hold, or books the difference if it has ended before. Reply: 1 if the hold was open, 0 if
-- it had ended or a later try has taken its place, -1 if it is not known and no path was given; then
-- the three amounts of its maximum.
local function settle(id, spent, path, fence)
  local hold = holds.read(id)
  if not hold then
    local is_nothing = spent[1] == 0 and spent[2] == 0 and spent[3] == 0
    if #path > 0 or is_nothing then
      settle_unknown(id, spent, path, fence)
    end
    return { #path > 0 and 1 or -1, '0', '0', '0' }
  end
  local maximum = hold.maximum
  if hold.fence > fence then
    return { 0, int(maximum[1]), int(maximum[2]), int(maximum[3]) }
  end
  book_settlement(hold, spent)
  holds.finish(hold.key, 'done', spent, holds.SETTLED_KEPT_MS, hold.fence)
  redis.call('ZREM', HOLDS, id)
  write_entry(hold.is_open and 'commit' or 'adjust', id)
  return { hold.is_open and 1 or 0, int(maximum[1]), int(maximum[2]), int(maximum[3]) }
end

return { settle = settle }
