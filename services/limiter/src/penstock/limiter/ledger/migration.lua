-- Migration from schema 1, whose counters were named `c:RULE:VALUE`; see `store/schema.py`.

-- The part of a key that stands for a value. Values that are too long for a key begin anew.
local function encoded(value)
  return (string.gsub(value, '[^%w%-%._~]', function(character)
    return format('%%%02X', string.byte(character))
  end))
end

-- What the state of a counter is: `rate`, `calendar` or `rolling`; nil where there is none.
local function stored_kind(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'string' then
    return 'rate'
  elseif kind == 'hash' then
    return redis.call('HEXISTS', key, 'o') == 1 and 'rolling' or 'calendar'
  end
  return nil
end

-- The present name of a counter of schema 1; nil where its rule is gone, has changed its kind since,
-- or has been migrated.
local function present_name(key, state_kinds)
  local rule, value = string.match(string.sub(key, #PREFIX + 1), '^c:([^:]+):(.*)$')
  local state_kind = rule and state_kinds[rule]
  if not state_kind or string.sub(value, 1, #state_kind + 1) == state_kind .. ':' then
    return nil
  end
  local kind = stored_kind(key)
  if kind and kind ~= string.match(state_kind, '^%a+') then
    return nil
  end
  return PREFIX .. 'c:' .. rule .. ':' .. state_kind .. ':' .. encoded(value)
end

local function rename_field(hash, old, new)
  local value = redis.call('HGET', hash, old)
  if value then
    redis.call('HSET', hash, new, value)
    redis.call('HDEL', hash, old)
  end
end

local function rename_in_holds(state_kinds)
  for _, id in ipairs(redis.call('ZRANGE', HOLDS, 0, -1)) do
    local hold = holds.read(id)
    if hold then
      for _, counter in ipairs(hold.path) do
        counter[KEY] = present_name(counter[KEY], state_kinds) or counter[KEY]
      end
      redis.call('HSET', hold.key, 'p', cjson.encode(hold.path))
    end
  end
end

-- Names an organisation's budgets as now, in counters, limits, sums and holds; entries are folded
-- into sums. Rates begin anew. `state_kinds` is by rule. Reply: the number of budgets renamed.
local function migrate(state_kinds)
  local renamed = 0
  while redis.call('XLEN', LEDGER) > 0 do
    fold_oldest()
  end
  redis.call('DEL', LEDGER_BYTES)
  rename_in_holds(state_kinds)
  local limits = redis.call('HKEYS', PREFIX .. 'limits')
  for _, key in ipairs(limits) do
    local new = present_name(key, state_kinds)
    if new then
      rename_field(PREFIX .. 'limits', key, new)
    end
  end
  for _, key in ipairs(redis.call('SMEMBERS', PREFIX .. 'counters')) do
    local new = present_name(key, state_kinds)
    if new and redis.call('EXISTS', key) == 1 then
      redis.call('RENAME', key, new)
      redis.call('SREM', PREFIX .. 'counters', key)
      redis.call('SADD', PREFIX .. 'counters', new)
      rename_field(FOLDED, key, new)
      renamed = renamed + 1
    end
  end
  return { renamed }
end

return { migrate = migrate }
