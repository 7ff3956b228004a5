-- The ledger's entries: what an operation books, and how old entries are folded into sums.

-- Entries that are folded at a time, once the ledger has so many more than it keeps.
local FOLDED_AT_ONCE = 200

-- Lines of the entry that the present operation is writing.
local entry_lines = {}

-- Takes an amount that a rolling window gets back from its oldest steps, so that no step is ever
-- below 0. Returns how much there was to take.
local function take_from_oldest_steps(key, amount, last_step)
  local left = amount
  for step = hash_number(key, 'o'), last_step do
    local field = 'b' .. int(step)
    local part = math.min(hash_number(key, field), left)
    if part > 0 then
      redis.call('HINCRBY', key, field, int(-part))
      left = left - part
    end
  end
  return amount - left
end

-- Adds to a budget's committed and held amounts, in the counter and in the ledger. `step` is the
-- present step of a rolling window and nil for other windows.
local function book(key, window, committed, held, step)
  if step and committed < 0 then
    committed = 0 - take_from_oldest_steps(key, -committed, step)
    step = nil
  end
  if committed == 0 and held == 0 then
    return
  end
  if committed ~= 0 then
    redis.call('HINCRBY', key, 'c', int(committed))
  end
  if held ~= 0 then
    redis.call('HINCRBY', key, 'h', int(held))
  end
  if step and committed ~= 0 then
    redis.call('HINCRBY', key, 'b' .. int(step), int(committed))
  end
  entry_lines[#entry_lines + 1] =
    table.concat({ key, int(window), int(committed), int(held) }, ' ')
end

-- The sum of a counter's folded entries as {window, committed, held}. It starts at `window` where
-- nothing has been folded yet.
local function folded_sum(key, window)
  local text = redis.call('HGET', FOLDED, key)
  if not text then
    return { window, 0, 0 }
  end
  local at, committed, held = string.match(text, '^(%-?%d+) (%-?%d+) (%-?%d+)$')
  return { tonumber(at), tonumber(committed), tonumber(held) }
end

-- Adds an entry's lines to the sums by counter. A later window replaces an earlier one.
local function add_lines(sums, lines)
  for line in string.gmatch(lines, '[^\n]+') do
    local key, window, committed, held = string.match(line, '^(.*) (%-?%d+) (%-?%d+) (%-?%d+)$')
    window = tonumber(window)
    local sum = sums[key] or folded_sum(key, window)
    sums[key] = sum
    if window > sum[1] then
      sum[1], sum[2], sum[3] = window, 0, 0
    end
    if window == sum[1] then
      sum[2], sum[3] = sum[2] + tonumber(committed), sum[3] + tonumber(held)
    end
  end
end

-- Replaces the oldest entries by one sum a counter.
local function fold_oldest()
  local sums = {}
  for _, row in ipairs(redis.call('XRANGE', LEDGER, '-', '+', 'COUNT', FOLDED_AT_ONCE)) do
    local id, fields = row[1], row[2]
    add_lines(sums, fields[6])
    redis.call('XDEL', LEDGER, id)
  end
  for key, sum in pairs(sums) do
    redis.call('HSET', FOLDED, key, table.concat({ int(sum[1]), int(sum[2]), int(sum[3]) }, ' '))
  end
end

-- Writes what has been booked as one entry of the ledger; does nothing if nothing has.
local function write(operation, id)
  if #entry_lines > 0 then
    local lines = table.concat(entry_lines, '\n')
    redis.call('XADD', LEDGER, '*', 'op', operation, 'id', id, 'd', lines)
    if redis.call('XLEN', LEDGER) > MAX_ENTRIES + FOLDED_AT_ONCE then
      fold_oldest()
    end
  end
  entry_lines = {}
end

return {
  book = book,
  write = write,
}
