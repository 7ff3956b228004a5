-- What the calls of a tree of runs have cost, in rows.
--
-- A ROW is what was spent at a node for one thing: its LABEL is text, a line with the kind of
-- spending and a line with the model and the step as JSON (`run_costs.py`). A row holds calls,
-- tokens, micro-dollars, and by how much the micro-dollars are rounded up, in millionths of one:
-- so the exact amount is known, however many calls have been rounded.
--
-- A PART is a label and the same four numbers: a piece of one hold's spending. A hold remembers its
-- parts under the labels by which they were counted, so that a later settlement takes back exactly
-- what was counted before. The calls, tokens and micro-dollars of a node's parts are what it has
-- SPENT.
--
-- A tree has MAX_ROWS labels at most; what comes under further ones is counted by kind alone, as
-- that of OTHER steps and models.
--
-- KEY  run:ROOT:costs   a hash: JSON of a row by node, a line feed, and its label

local MAX_ROWS = 4096
local ROUNDING, PICO = 4, 1000000
local OTHER = '\n["(other)","(other)"]'

local function field_of(id, label)
  return id .. '\n' .. label
end

local function read_row(key, field)
  local text = redis.call('HGET', key, field)
  return text and cjson.decode(text) or nil
end

-- The label under which a part is counted.
local function counted_label(key, id, label)
  if redis.call('HEXISTS', key, field_of(id, label)) == 0
    and redis.call('HLEN', key) >= MAX_ROWS
  then
    return string.match(label, '^[^\n]*') .. OTHER
  end
  return label
end

local function add_to_row(key, field, numbers, sign)
  local row = read_row(key, field) or { 0, 0, 0, 0 }
  for n = 1, 4 do
    row[n] = row[n] + sign * numbers[n]
  end
  local carried = math.floor(row[ROUNDING] / PICO)
  row[3], row[ROUNDING] = row[3] - carried, row[ROUNDING] - carried * PICO
  if row[1] == 0 and row[2] == 0 and row[3] == 0 and row[ROUNDING] == 0 then
    redis.call('HDEL', key, field)
  else
    redis.call('HSET', key, field, cjson.encode(row))
  end
end

-- Counts parts at a node, and returns them under the labels by which they were counted.
local function add(key, id, parts)
  local counted = {}
  for _, part in ipairs(parts) do
    local label, calls, tokens, microusd, rounding = unpack(part)
    label = counted_label(key, id, label)
    add_to_row(key, field_of(id, label), { calls, tokens, microusd, rounding }, 1)
    counted[#counted + 1] = { label, calls, tokens, microusd, rounding }
  end
  return counted
end

-- Takes back what `add` has counted.
local function take_back(key, id, parts)
  for _, part in ipairs(parts) do
    local label, calls, tokens, microusd, rounding = unpack(part)
    add_to_row(key, field_of(id, label), { calls, tokens, microusd, rounding }, -1)
  end
end

-- The sums of parts: calls, tokens and micro-dollars.
local function spent_of(parts)
  local spent = { 0, 0, 0 }
  for _, part in ipairs(parts) do
    for d = 1, 3 do
      spent[d] = spent[d] + part[d + 1]
    end
  end
  return spent
end

-- Fields and rows of these nodes in turn; `nodes` is a table by id.
local function rows_of(key, nodes)
  local reply, all = {}, redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    if nodes[string.match(all[i], '^[^\n]*')] then
      reply[#reply + 1] = all[i]
      reply[#reply + 1] = all[i + 1]
    end
  end
  return reply
end

return { add = add, take_back = take_back, spent_of = spent_of, rows_of = rows_of }
