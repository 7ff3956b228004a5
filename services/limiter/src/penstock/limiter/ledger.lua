-- The ledger in the store. One script decides for a whole path and then writes, so every operation
-- is atomic. One organisation's keys share one hash tag.
-- ARGV: operation, time in microseconds (0: the store's own), prefix, arguments as one JSON array,
-- entries that the ledger keeps.
-- Replies are flat arrays of numbers and strings.
if redis.replicate_commands then
  redis.replicate_commands()
end

local op, now_us, P = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local args = cjson.decode(ARGV[4])
if now_us == 0 then
  local t = redis.call('TIME')
  now_us = t[1] * 1000000 + t[2]
end
local now_ms = math.floor(now_us / 1000)
local N, HOLDS, LEDGER, FOLDED = 60, P .. 'holds', P .. 'ledger', P .. 'folded'
local LEDGER_KEPT, FOLD = tonumber(ARGV[5]), 200
local SETTLED_MS, EXPIRED_MS, SLICES, MEMORY, CAUTION = 60000, 3600000, 48, 8, 1.5
local KEY, KIND, DIM, LIMIT, EXPECTED, SHADOW, START, FINISH, FOLLOWING, ADAPTIVE, ALERTS, AMOUNT =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
local OK, RATE, BUDGET, NEVER, SHED, UNPRICED, DRAINED, STALE = 1, 2, 3, 4, 5, 7, 8, 99
local INF = 9007199254740991

local function int(n)
  return string.format('%.0f', n)
end
local function num(v)
  return v and tonumber(v) or 0
end
local function get(key, field)
  return num(redis.call('HGET', key, field))
end

local entry = {}
local function book(key, window, committed, held, bucket)
  if bucket and committed < 0 then
    -- what comes back to a rolling window is taken from its oldest parts, so that no part is ever
    -- below nothing
    local left = -committed
    for index = get(key, 'o'), bucket do
      local field = 'b' .. int(index)
      local part = math.min(get(key, field), left)
      if part > 0 then
        redis.call('HINCRBY', key, field, int(-part))
        left = left - part
      end
    end
    committed, bucket = committed + left, nil
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
  if bucket and committed ~= 0 then
    redis.call('HINCRBY', key, 'b' .. int(bucket), int(committed))
  end
  entry[#entry + 1] = table.concat({ key, int(window), int(committed), int(held) }, ' ')
end

-- the oldest entries of a long ledger become one sum a counter (window, committed, held), so that
-- the rest still replays to the state
local function fold()
  local sums = {}
  for _, row in ipairs(redis.call('XRANGE', LEDGER, '-', '+', 'COUNT', FOLD)) do
    for line in string.gmatch(row[2][6], '[^\n]+') do
      local key, w, c, h = string.match(line, '^(.*) (%-?%d+) (%-?%d+) (%-?%d+)$')
      w, c, h = tonumber(w), tonumber(c), tonumber(h)
      local sum = sums[key]
      if not sum then
        local known = redis.call('HGET', FOLDED, key)
        local at, committed, held = string.match(known or '', '^(%-?%d+) (%-?%d+) (%-?%d+)$')
        sum = known and { tonumber(at), tonumber(committed), tonumber(held) } or { w, 0, 0 }
        sums[key] = sum
      end
      if w > sum[1] then
        sum[1], sum[2], sum[3] = w, 0, 0
      end
      if w == sum[1] then
        sum[2], sum[3] = sum[2] + c, sum[3] + h
      end
    end
    redis.call('XDEL', LEDGER, row[1])
  end
  for key, sum in pairs(sums) do
    redis.call('HSET', FOLDED, key, table.concat({ int(sum[1]), int(sum[2]), int(sum[3]) }, ' '))
  end
end

local function write(what, id)
  if #entry > 0 then
    redis.call('XADD', LEDGER, '*', 'op', what, 'id', id, 'd', table.concat(entry, '\n'))
    if redis.call('XLEN', LEDGER) > LEDGER_KEPT + FOLD then
      fold()
    end
  end
  entry = {}
end

local function opened(key)
  redis.call('SADD', P .. 'counters', key)
end

local function roll(c)
  -- brings a budget's counter to its present window; returns the window's begin, or nil when the
  -- caller's windows are old
  if c[KIND] == 'calendar' then
    local start = c[START]
    if now_ms >= c[FINISH] then
      start = c[FINISH]
    end
    if now_ms < c[START] or now_ms >= c[FOLLOWING] then
      return nil
    end
    local w = redis.call('HGET', c[KEY], 'w')
    if not w then
      opened(c[KEY])
    end
    if num(w) ~= start then
      redis.call('HSET', c[KEY], 'w', int(start), 'c', 0, 'h', 0, 'a', 0)
    end
    return start
  end
  local step = math.floor(c[START] / N)
  local present = math.floor(now_ms / step)
  local oldest = redis.call('HGET', c[KEY], 'o')
  if not oldest then
    redis.call('HSET', c[KEY], 'o', int(present), 'w', 0)
    opened(c[KEY])
    return 0
  end
  oldest = num(oldest)
  local last = math.min(present - N, oldest + 2 * N)
  for index = oldest, last - 1 do
    local field = 'b' .. int(index)
    local spent = get(c[KEY], field)
    if spent ~= 0 then
      book(c[KEY], 0, -spent, 0)
    end
    redis.call('HDEL', c[KEY], field)
  end
  if present - N > oldest then
    redis.call('HSET', c[KEY], 'o', int(present - N))
  end
  return 0
end

local function bucket(c)
  if c[KIND] == 'rolling' then
    return math.floor(now_ms / math.floor(c[START] / N))
  end
  return nil
end

local function limit(c, limits)
  local own = limits[c[KEY]]
  return own and tonumber(own) or c[LIMIT]
end

local function backlog(c)
  return math.max(num(redis.call('GET', c[KEY])) - now_us, 0)
end
local function push(c, most, n)
  local T = c[START] / most
  local tat = math.max(num(redis.call('GET', c[KEY])), now_us) + math.ceil(n * T)
  if tat < now_us then
    tat = now_us
  end
  redis.call('SET', c[KEY], int(tat), 'PX', int(math.ceil((tat - now_us) / 1000) + 1000))
end

local function demand(c, priority, amount)
  local length = c[KIND] == 'calendar' and c[FINISH] - c[START] or c[START]
  local slice = math.max(math.floor(length / SLICES), 1000)
  local index = math.floor(now_ms / slice)
  local last = redis.call('HGET', c[KEY], 'i')
  if num(last) ~= index then
    local passed = last and math.min(index - num(last), MEMORY * 8) or 0
    local weight = last and get(c[KEY], 'v') + slice or 0
    for n = 2, passed do
      weight = math.floor(weight * (MEMORY - 1) / MEMORY) + slice
    end
    for p = 1, 4 do
      local sum = math.floor(get(c[KEY], 'e' .. p) * (MEMORY - 1) / MEMORY) + get(c[KEY], 'd' .. p)
      for n = 2, passed do
        sum = math.floor(sum * (MEMORY - 1) / MEMORY)
      end
      redis.call('HSET', c[KEY], 'e' .. p, int(sum), 'd' .. p, 0)
    end
    redis.call(
      'HSET',
      c[KEY],
      'i',
      int(index),
      'v',
      int(math.floor(weight * (MEMORY - 1) / MEMORY))
    )
  end
  if amount > 0 then
    redis.call('HINCRBY', c[KEY], 'd' .. priority, int(amount))
  end
  return slice, index
end

local function kept(c, priority, slice, index, start)
  -- what more urgent work is forecast to need until the window ends
  local urgent = 0
  for p = priority + 1, 4 do
    urgent = urgent + get(c[KEY], 'd' .. p) + get(c[KEY], 'e' .. p)
  end
  if urgent == 0 then
    return 0
  end
  local left = c[KIND] == 'calendar' and (start == c[START] and c[FINISH] or c[FOLLOWING]) - now_ms
    or math.floor(c[START] / 4)
  return math.floor(
    CAUTION
      * urgent
      * left
      / (get(c[KEY], 'v') + math.max(now_ms - index * slice, math.floor(slice / 2)))
  )
end

local function sweep()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', HOLDS, '-inf', int(now_ms), 'LIMIT', 0, 5000)) do
    local hold = P .. 'hold:' .. id
    local state = redis.call('HMGET', hold, 'm', 'e', 'l', 's', 'w', 'p', 'kind')
    redis.call('ZREM', HOLDS, id)
    if state[1] then
      local most, usual, least, spent =
        cjson.decode(state[1]),
        cjson.decode(state[2]),
        cjson.decode(state[3]),
        cjson.decode(state[4])
      local starts = cjson.decode(state[5])
      for i, c in ipairs(cjson.decode(state[6])) do
        local d = c[DIM] + 1
        if c[KIND] ~= 'rate' then
          local held = c[EXPECTED] == 1 and usual[d] or most[d]
          if c[KIND] == 'rolling' or get(c[KEY], 'w') == starts[i] then
            if c[KIND] == 'rolling' then
              roll(c)
            end
            book(c[KEY], starts[i], least[d], -held, bucket(c))
          end
        end
      end
      -- what stays spent: the input's cost of a call, all of a lease
      for d = 1, 3 do
        spent[d] = spent[d] + least[d]
      end
      redis.call(
        'HSET',
        hold,
        'state',
        'expired',
        's',
        cjson.encode(spent),
        'f',
        int(now_ms + EXPIRED_MS)
      )
      redis.call('PEXPIRE', hold, EXPIRED_MS)
      write('expire', id)
    end
  end
end

local function limits_of(path)
  local found = {}
  if #path > 0 then
    local keys = {}
    for i, c in ipairs(path) do
      keys[i] = c[KEY]
    end
    local values = redis.call('HMGET', P .. 'limits', unpack(keys))
    for i, c in ipairs(path) do
      if values[i] then
        found[c[KEY]] = values[i]
      end
    end
  end
  return found
end

-- looks at one counter: verdict, milliseconds until trying again may help, what is available, the
-- limit, the window's begin
local function look(c, n, limits, priority, asked)
  local most = limit(c, limits)
  if c[KIND] == 'rate' then
    local T = c[START] / most
    local room = c[FINISH] * T - backlog(c)
    local free = math.max(math.floor(room / T), 0)
    if n > c[FINISH] then
      return NEVER, 0, free, most, 0, free
    end
    if n > 0 and n * T > room then
      return RATE, math.ceil((n * T - room) / 1000), free, most, 0, free
    end
    return OK, 0, free, most, 0, free
  end
  local start = roll(c)
  if not start then
    return STALE, 0, 0, most, 0, 0
  end
  local free = most - get(c[KEY], 'c') - get(c[KEY], 'h')
  local slice, index = 0, 0
  local keep = 0
  if c[ADAPTIVE] == 1 then
    slice, index = demand(c, priority, asked)
    keep = kept(c, priority, slice, index, start)
  end
  if n > most then
    return NEVER, 0, free, most, start, free
  end
  if n > 0 and n > free then
    local finish = 0
    if c[KIND] == 'calendar' then
      finish = (start == c[START] and c[FINISH] or c[FOLLOWING]) - now_ms
    else
      local step = math.floor(c[START] / N)
      finish = math.max((get(c[KEY], 'o') + N + 1) * step - now_ms, 1)
    end
    return BUDGET, finish, free, most, start, free
  end
  if n > 0 and n > free - keep then
    return SHED, (index + 1) * slice - now_ms, free - keep, most, start, free
  end
  return OK, 0, free - keep, most, start, free
end

local function alert(c, most)
  -- the highest share of the limit that is newly passed, in thousandths; 0 for none
  if c[KIND] == 'rate' or #c[ALERTS] == 0 then
    return 0
  end
  local used, seen, level = get(c[KEY], 'c') + get(c[KEY], 'h'), get(c[KEY], 'a'), 0
  for i, share in ipairs(c[ALERTS]) do
    if used >= share * most then
      level = i
    end
  end
  if level == seen then
    return 0
  end
  redis.call('HSET', c[KEY], 'a', level)
  return level > seen and math.floor(c[ALERTS][level] * 1000 + 0.5) or 0
end

-- reply of reserve: verdict, index of the deciding counter from 1 (0: none), retry ms, available,
-- granted ×3, tight, pairs (index, alert) …
local function reserve(id, lease, path, most, usual, least, ttl, priority, unpriced, share)
  local hold = P .. 'hold:' .. id
  local before = redis.call('HMGET', hold, 'state', 'm', 'f')
  if before[3] and num(before[3]) <= now_ms then
    redis.call('DEL', hold)
    before[1] = false
  end
  if before[1] then
    local m = cjson.decode(before[2])
    return { OK, 0, 0, '0', int(m[1]), int(m[2]), int(m[3]), 0 }
  end
  if redis.call('EXISTS', P .. 'drained') == 1 then
    return { DRAINED, 0, 0, '0', '0', '0', '0', 0 }
  end
  local limits, starts, tight = limits_of(path), {}, 0
  -- what no rule counts is not bounded: a lease says so, and its holder need not ask again
  local grant = lease == 1 and { INF, INF, INF } or { most[1], most[2], most[3] }
  local worst, at, wait, room = OK, 0, 0, 0
  for i, c in ipairs(path) do
    local d = c[DIM] + 1
    local need = lease == 1 and least[d] or (c[EXPECTED] == 1 and usual[d] or most[d])
    if c[AMOUNT] >= 0 then
      need = c[AMOUNT]
    end
    local verdict, retry, free, top, start, left =
      look(c, need, limits, priority, lease == 1 and 0 or usual[d])
    starts[i] = start
    if d == 3 and unpriced == 1 and verdict ~= STALE then
      verdict, retry = UNPRICED, 0
    end
    if verdict == STALE then
      return { STALE, i, 0, int(now_ms), '0', '0', '0', 0 }
    end
    if verdict ~= OK and c[SHADOW] == 0 and worst == OK then
      worst, at, wait, room = verdict, i, retry, free
    end
    if lease == 1 then
      grant[d] = math.min(grant[d], most[d])
      if c[SHADOW] == 0 then
        grant[d] = math.min(grant[d], math.max(math.floor(free * share), least[d]))
        if c[KIND] ~= 'rate' and c[EXPECTED] == 0 and left * 10 < top then
          tight = 1
        end
      end
    end
  end
  if worst ~= OK then
    return { worst, at, wait, int(room), '0', '0', '0', 0 }
  end
  if lease == 1 and tight == 1 then
    return { OK, 0, 0, '0', '0', '0', '0', 1 }
  end
  local kept_vector = lease == 1 and grant or least
  local reply = { OK, 0, 0, '0', int(grant[1]), int(grant[2]), int(grant[3]), 0 }
  for i, c in ipairs(path) do
    local d = c[DIM] + 1
    local held = (lease == 0 and c[EXPECTED] == 1) and usual[d] or grant[d]
    if c[AMOUNT] >= 0 then
      held = c[AMOUNT]
    end
    if held < INF then
      if c[KIND] == 'rate' then
        push(c, limit(c, limits), held)
      else
        book(c[KEY], starts[i], 0, held)
      end
    end
    local passed = alert(c, limit(c, limits))
    if passed > 0 then
      reply[#reply + 1] = i
      reply[#reply + 1] = passed
    end
  end
  if ttl == 0 then
    return reply
  end -- nobody will settle: spent at once
  redis.call(
    'HSET',
    hold,
    'state',
    'open',
    'kind',
    lease,
    'm',
    cjson.encode(grant),
    'e',
    cjson.encode(lease == 1 and grant or usual),
    'l',
    cjson.encode(kept_vector),
    's',
    '[0,0,0]',
    'w',
    cjson.encode(starts),
    'p',
    cjson.encode(path),
    't',
    ttl
  )
  redis.call('ZADD', HOLDS, int(now_ms + ttl), id)
  write('reserve', id)
  return reply
end

local function opened_hold(id)
  local hold = P .. 'hold:' .. id
  local f = redis.call('HMGET', hold, 'state', 'm', 'e', 'l', 's', 'w', 'p', 't', 'f')
  if not f[1] or (f[9] and num(f[9]) <= now_ms) then
    return nil
  end
  return {
    key = hold,
    state = f[1],
    most = cjson.decode(f[2]),
    usual = cjson.decode(f[3]),
    least = cjson.decode(f[4]),
    spent = cjson.decode(f[5]),
    starts = cjson.decode(f[6]),
    path = cjson.decode(f[7]),
    ttl = tonumber(f[8]),
  }
end

local function in_window(h, i, c)
  return c[KIND] == 'rolling' or get(c[KEY], 'w') == h.starts[i]
end

-- what extend and renew add to their replies: counters that newly passed an alert share, and last
-- the path's keys, where there is one to name
local function named(reply, h, limits, at)
  local found = at > 0
  for i, c in ipairs(h.path) do
    local passed = c[KIND] ~= 'rate' and in_window(h, i, c) and alert(c, limit(c, limits)) or 0
    if passed > 0 then
      reply[#reply + 1] = i
      reply[#reply + 1] = passed
      found = true
    end
  end
  if found then
    local keys = {}
    for i, c in ipairs(h.path) do
      keys[i] = c[KEY]
    end
    reply[#reply + 1] = cjson.encode(keys)
  end
  return reply
end

local function extend(id, most)
  local h = opened_hold(id)
  if not h or h.state ~= 'open' then
    return { BUDGET, 0, 0, '0' }
  end
  local limits = limits_of(h.path)
  for i, c in ipairs(h.path) do
    local d = c[DIM] + 1
    local more = most[d] - (c[EXPECTED] == 1 and h.usual[d] or h.most[d])
    if more > 0 and c[SHADOW] == 0 then
      local verdict, retry, free = look(c, more, limits, 4, 0)
      if verdict ~= OK and verdict ~= STALE then
        return named({ verdict, i, retry, int(free) }, h, limits, i)
      end
    end
  end
  for i, c in ipairs(h.path) do
    local d = c[DIM] + 1
    local more = most[d] - (c[EXPECTED] == 1 and h.usual[d] or h.most[d])
    if more > 0 then
      if c[KIND] == 'rate' then
        push(c, limit(c, limits), more)
      elseif in_window(h, i, c) then
        book(c[KEY], h.starts[i], 0, more)
      end
    end
  end
  for d = 1, 3 do
    h.most[d], h.usual[d] = math.max(h.most[d], most[d]), math.max(h.usual[d], most[d])
  end
  redis.call('HSET', h.key, 'm', cjson.encode(h.most), 'e', cjson.encode(h.usual))
  redis.call('ZADD', HOLDS, int(now_ms + h.ttl), id)
  write('extend', id)
  return named({ OK, 0, 0, '0' }, h, limits, 0)
end

-- books what passed without a hold, and remembers its id, so that neither a repetition nor the hold
-- itself, coming late, books it again
local function settle_unknown(id, spent, path)
  local limits, starts = limits_of(path), {}
  for i, c in ipairs(path) do
    local d = c[DIM] + 1
    if c[KIND] == 'rate' then
      starts[i] = 0
      if spent[d] > 0 then
        push(c, limit(c, limits), spent[d])
      end
    else
      starts[i] = c[KIND] == 'calendar' and c[START] or 0
      if roll(c) == starts[i] then
        book(c[KEY], starts[i], spent[d], 0, bucket(c))
      end
    end
  end
  local key = P .. 'hold:' .. id
  redis.call(
    'HSET',
    key,
    'state',
    'done',
    'kind',
    0,
    'm',
    '[0,0,0]',
    'e',
    '[0,0,0]',
    'l',
    '[0,0,0]',
    's',
    cjson.encode(spent),
    'w',
    cjson.encode(starts),
    'p',
    cjson.encode(path),
    't',
    0,
    'f',
    int(now_ms + SETTLED_MS)
  )
  redis.call('PEXPIRE', key, SETTLED_MS)
  write('commit', id)
  return { 1, '0', '0', '0' }
end

-- ends a hold, or books the difference where it has ended before; reply: settled (-1: not known),
-- held before ×3
local function settle(id, spent, path)
  local h = opened_hold(id)
  if not h then
    if #path > 0 then
      return settle_unknown(id, spent, path)
    end
    return { -1, '0', '0', '0' }
  end
  local open = h.state == 'open'
  local limits = limits_of(h.path)
  for i, c in ipairs(h.path) do
    local d = c[DIM] + 1
    local held = open and (c[EXPECTED] == 1 and h.usual[d] or h.most[d]) or 0
    if held >= INF then
      held = 0
    end
    if c[KIND] == 'rate' then
      if open then
        push(c, limit(c, limits), spent[d] - h.spent[d] - held)
      end
    elseif in_window(h, i, c) then
      if c[KIND] == 'rolling' then
        roll(c)
      end
      book(c[KEY], h.starts[i], spent[d] - h.spent[d], -held, bucket(c))
    end
  end
  redis.call(
    'HSET',
    h.key,
    'state',
    'done',
    's',
    cjson.encode(spent),
    'f',
    int(now_ms + SETTLED_MS)
  )
  redis.call('ZREM', HOLDS, id)
  redis.call('PEXPIRE', h.key, SETTLED_MS)
  write(open and 'commit' or 'adjust', id)
  return { open and 1 or 0, int(h.most[1]), int(h.most[2]), int(h.most[3]) }
end

-- books what a lease has spent since its grant and fills it up; reply: verdict, index, retry,
-- available, present share ×3
local function renew(id, spent, wanted, share, priority)
  local h = opened_hold(id)
  if not h or h.state ~= 'open' or redis.call('EXISTS', P .. 'drained') == 1 then
    return { BUDGET, 0, 0, '0', '0', '0', '0' }
  end
  local limits, more, fresh, taken = limits_of(h.path), { 0, 0, 0 }, { 0, 0, 0 }, { 0, 0, 0 }
  for d = 1, 3 do
    fresh[d] = math.max(spent[d] - h.spent[d], 0)
    taken[d] = math.min(fresh[d], h.most[d])
    if h.most[d] < INF then
      h.most[d] = h.most[d] - taken[d]
    end
    more[d] = wanted[d] - h.most[d]
  end
  local worst, at, wait, room = OK, 0, 0, 0
  local bounded = { false, false, false }
  for i, c in ipairs(h.path) do
    local d = c[DIM] + 1
    if c[KIND] ~= 'rate' and in_window(h, i, c) then
      if c[KIND] == 'rolling' then
        roll(c)
      end
      book(c[KEY], h.starts[i], fresh[d], -taken[d], bucket(c))
    end
    bounded[d] = true
    local current = c[KIND] ~= 'calendar' or roll(c) == h.starts[i]
    local verdict, retry, free, top, start, left = look(c, 0, limits, priority, fresh[d])
    if not current or verdict == STALE then
      more[d] = 0
    elseif c[SHADOW] == 0 then
      more[d] = math.min(more[d], math.max(math.floor(free * share), 0))
      if c[KIND] ~= 'rate' and c[EXPECTED] == 0 and left * 10 < top then
        more[d] = math.min(more[d], 0)
      end
    end
    if free <= 0 and worst == OK and c[SHADOW] == 0 then
      worst, at, wait, room = c[KIND] == 'rate' and RATE or BUDGET, i, retry, free
    end
  end
  for i, c in ipairs(h.path) do
    local d = c[DIM] + 1
    local n = math.max(more[d], -h.most[d])
    if n ~= 0 and h.most[d] < INF then
      if c[KIND] == 'rate' then
        push(c, limit(c, limits), n)
      elseif in_window(h, i, c) then
        book(c[KEY], h.starts[i], 0, n)
      end
    end
  end
  for d = 1, 3 do
    if bounded[d] and h.most[d] < INF then
      h.most[d] = math.max(h.most[d] + more[d], 0)
    end
    h.spent[d] = math.max(h.spent[d], spent[d])
  end
  local m = cjson.encode(h.most)
  redis.call('HSET', h.key, 'm', m, 'e', m, 'l', m, 's', cjson.encode(h.spent))
  redis.call('ZADD', HOLDS, int(now_ms + h.ttl), id)
  write('renew', id)
  return named(
    { OK, at, wait, int(room), int(h.most[1]), int(h.most[2]), int(h.most[3]) },
    h,
    limits,
    at
  )
end

-- reply: OK and four numbers a counter, or STALE and the present time
local function usage(path)
  local reply, limits = { OK }, limits_of(path)
  for _, c in ipairs(path) do
    local most = limit(c, limits)
    if c[KIND] == 'rate' then
      local T = c[START] / most
      reply[#reply + 1] = int(most)
      reply[#reply + 1] = int(math.ceil(backlog(c) / T))
      reply[#reply + 1] = '0'
      reply[#reply + 1] = '0'
    else
      local start = roll(c)
      if not start then
        return { STALE, int(now_ms) }
      end
      local finish = c[KIND] == 'calendar' and (start == c[START] and c[FINISH] or c[FOLLOWING])
        or 0
      reply[#reply + 1] = int(most)
      reply[#reply + 1] = int(get(c[KEY], 'c'))
      reply[#reply + 1] = int(get(c[KEY], 'h'))
      reply[#reply + 1] = int(finish)
    end
  end
  return reply
end

-- an operator's correction; reply: OK, committed before, committed now; or STALE and the present
-- time
local function adjust(c, amount, reset)
  if c[KIND] == 'rate' then
    local most = limit(c, limits_of({ c }))
    local before = math.ceil(backlog(c) / (c[START] / most))
    if reset == 1 then
      redis.call('DEL', c[KEY])
    else
      push(c, most, math.max(amount, -before))
    end
    return { OK, int(before), int(math.ceil(backlog(c) / (c[START] / most))) }
  end
  local start = roll(c)
  if not start then
    return { STALE, int(now_ms) }
  end
  local before = get(c[KEY], 'c')
  local change = reset == 1 and -before or math.max(amount, -before)
  book(c[KEY], start, change, 0, bucket(c))
  redis.call('HSET', c[KEY], 'a', 0)
  write('correct', '')
  return { OK, int(before), int(get(c[KEY], 'c')) }
end

-- what a replay needs, at one moment; reply: the ledger's last id, its first, number of sums, each
-- with its key, and the counters with their state
local function snapshot()
  local last, first =
    redis.call('XREVRANGE', LEDGER, '+', '-', 'COUNT', 1)[1],
    redis.call('XRANGE', LEDGER, '-', '+', 'COUNT', 1)[1]
  local sums = redis.call('HGETALL', FOLDED)
  local reply = { last and last[1] or '0-0', first and first[1] or '0-0', #sums / 2 }
  for _, part in ipairs(sums) do
    reply[#reply + 1] = part
  end
  for _, key in ipairs(redis.call('SMEMBERS', P .. 'counters')) do
    reply[#reply + 1] = key
    reply[#reply + 1] =
      table.concat({ int(get(key, 'w')), int(get(key, 'c')), int(get(key, 'h')) }, ' ')
  end
  return reply
end

local function drain(on)
  if on == 1 then
    redis.call('SET', P .. 'drained', 1)
  else
    redis.call('DEL', P .. 'drained')
  end
  return { redis.call('ZCARD', HOLDS) }
end

local operations = {
  reserve = reserve,
  extend = extend,
  settle = settle,
  renew = renew,
  usage = usage,
  adjust = adjust,
  drain = drain,
  snapshot = snapshot,
}
sweep()
local reply = operations[op](unpack(args))
write('roll', '')
return reply
