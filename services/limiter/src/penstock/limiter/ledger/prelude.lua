-- The limiter's ledger: a script that Redis runs, joined by `script.py` from the files of this
-- folder. It decides whether a call may spend and writes what it decided. What stands in this file
-- is known to all others; each of those is a Lua module that returns a table of functions.
--
-- PATHS AND COUNTERS. A call spends on a path: organisation, team, user, key, model and tags. Every
-- rule of the configuration that applies to the path counts with one counter of its own. The caller
-- sends the counters as rows, whose columns are named below. An operation first checks every
-- counter and writes only when all allow it, so a call is counted everywhere or nowhere. Redis runs
-- one script at a time, so no two callers can spend the same amount.
--
-- RATES. A rate rule allows `limit` units a period, refilled evenly, and `burst` units at once.
-- GCRA, the generic cell rate algorithm (ITU-T I.371), needs one number for that: the theoretical
-- arrival time (TAT), at which everything spent so far will have been refilled. One unit takes the
-- emission interval T = period / limit to refill. The backlog is TAT - now, or 0 when TAT has
-- passed. n units pass if backlog + n T <= burst T, and then TAT becomes max(TAT, now) + n T.
-- Otherwise they would pass after backlog + n T - burst T.
--
-- BUDGETS. A budget rule allows `limit` units a window, and keeps committed + held + available
-- equal to the limit. What is committed is spent; what is held may still be spent by calls that
-- run.
-- * A calendar window begins and ends with an hour, day, month, ... of a time zone. The caller
--   computes its boundaries, because Lua has no time zones. The clock of the store decides which
--   window it is: a caller whose boundaries do not fit gets STALE_WINDOWS with the store's time and
--   asks again. A new window starts from 0; what was held in the old one no longer counts.
-- * A rolling window is the time until now, in 60 steps. What was spent in a step stops counting
--   when the whole step has left the window, so it counts for up to one step too long.
--
-- HOLDS. `reserve` holds what a call may cost, `extend` enlarges the hold while an answer grows,
-- and `settle` books what was spent and frees the rest. A hold knows three costs: the maximum; the
-- expected cost (the input and a quantile of earlier outputs), which rules with `holds: expected`
-- hold instead; and the minimum (the input), which stays spent if nobody settles before the hold
-- expires. Every operation is idempotent by the hold's id, so a caller without an answer may repeat
-- it. A hold is remembered for a minute after it is settled and for an hour after it expires; a
-- later settlement books only the difference. A settlement whose hold is not known is booked on the
-- path that comes with it: the store has lost the hold, or the call passed while the store was
-- away.
--
-- LEASES. A lease is a hold from which a router admits calls without asking. It is granted a share
-- of what is available on the tightest counter. `renew` books what was spent since and fills the
-- lease up again. A lease that expires counts as spent in full until it is returned. A strict
-- budget of which less than a tenth is left is not leased: the reply says `tight`, and each call
-- has to be reserved. An amount that no rule of the path counts is granted UNBOUNDED.
--
-- PROTECTION LEVELS. A budget with `adaptive` lets a call pass only if what is available also
-- covers what more urgent priorities are forecast to need until the window ends: nested protection
-- levels, as airlines protect seats for fares that are booked late (Littlewood 1972).
-- `counters.lua` holds the forecast.
--
-- THE LEDGER. Every booking is a line "counter window committed held" of an entry in a stream. The
-- sum of a counter's lines in its latest window is the counter's state, which a replay verifies.
-- When the stream is too long, its oldest entries are folded into one sum a counter, and a replay
-- begins with the sums.
--
-- KEYS. All keys of an organisation begin with its prefix, whose hash tag puts them on one node.
--   c:RULE:VALUE   a rate: its TAT in microseconds.
--                  a budget: a hash with window start `w`, committed `c`, held `h` and alert
--                  level `a`; of a rolling window, oldest step `o` and spent in step N `bN`; for
--                  protection, present slice `i`, observed milliseconds `v`, demand of priority P
--                  in this slice `dP` and in earlier ones `eP`
--   hold:ID        a hold's hash; `holds.lua` names its fields
--   holds          ids of open holds, sorted by the time at which they expire
--   limits         limits that operators have set, by counter key
--   counters       keys of all budgets
--   ledger         the stream of entries
--   folded         sums of the entries that have been folded, by counter key
--   drained        exists while an operator refuses new holds
--
-- ARGV: operation, time in microseconds (0: the store's clock), key prefix, the operation's
-- arguments as a JSON array, number of ledger entries to keep. Amounts are requests, tokens and
-- micro-dollars, in this order. Replies are flat arrays of numbers and strings.

local PREFIX, MAX_ENTRIES = ARGV[3], tonumber(ARGV[5])
local HOLDS, LEDGER, FOLDED = PREFIX .. 'holds', PREFIX .. 'ledger', PREFIX .. 'folded'

local ALLOWED, RATE_LIMITED, BUDGET_EXHAUSTED, NEVER, SHED, UNPRICED, DRAINED = 1, 2, 3, 4, 5, 7, 8
-- The caller's calendar windows are not those of the store's clock.
local STALE_WINDOWS = 99
-- A lease's share of what no rule counts: the largest integer that a double holds exactly.
local UNBOUNDED = 9007199254740991

-- Columns of a counter's row. It counts one dimension: 0 requests, 1 tokens, 2 micro-dollars.
-- Columns 7 to 9 depend on the kind: `rate`, `calendar` or `rolling`.
local KEY, KIND, DIMENSION, LIMIT, IS_EXPECTED, IS_SHADOW = 1, 2, 3, 4, 5, 6
local PERIOD_US, BURST = 7, 8
local WINDOW_START_MS, WINDOW_END_MS, NEXT_WINDOW_END_MS = 7, 8, 9
local WINDOW_LENGTH_MS = 7
local IS_ADAPTIVE, ALERT_SHARES = 10, 11
-- What is asked of this counter alone; below 0, what is asked of the whole path counts.
local OWN_AMOUNT = 12
local MICROUSD = 2

local now_us = tonumber(ARGV[2])
if now_us == 0 then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end
local now_ms = math.floor(now_us / 1000)

local format = string.format

local function int(number)
  return format('%.0f', number)
end

local function number_or_zero(text)
  return tonumber(text or 0)
end

local function hash_number(key, field)
  return tonumber(redis.call('HGET', key, field) or 0)
end

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
local function book_entry(key, window, committed, held, step)
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
local function write_entry(operation, id)
  if #entry_lines > 0 then
    local lines = table.concat(entry_lines, '\n')
    redis.call('XADD', LEDGER, '*', 'op', operation, 'id', id, 'd', lines)
    if redis.call('XLEN', LEDGER) > MAX_ENTRIES + FOLDED_AT_ONCE then
      fold_oldest()
    end
  end
  entry_lines = {}
end
