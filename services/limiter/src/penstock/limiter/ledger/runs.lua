-- Agent runs: trees of budgets.
--
-- A RUN is a node of a tree. It has limits of calls, tokens, micro-dollars and time, a reserve of
-- the first three that only calls for a final answer may draw on, and three sums of each: SPENT by
-- its own calls, HELD by its own calls in flight, and SHARED, which its children have of it:
-- * of a child that is open, the child's limit: a share is taken when the child is opened;
-- * of a child that is closed, what the child has spent and holds: the rest was given back.
-- So what a call may spend is decided at its own node alone, and spent + held + shared <= limit at
-- every node keeps every ancestor within its own limit. A hold of a closed child that is settled
-- for less gives back to the first open ancestor.
--
-- STATES. A run is `running`, `paused`, `cancelled` or `ended`. A call that does not fit pauses its
-- run (`by` is `limit`), and one that fits later lets it run again: after a raise, or when a child
-- or a call in flight has given back. A run that somebody has paused runs again by a raise only. A
-- call that would fit if those in flight cost nothing is refused without a pause. Pausing,
-- cancelling and ending reach the whole subtree.
--
-- HOLDS. A hold may grow, under the same id. One that nobody settles counts as spent in full when
-- it expires, and a later settlement books the difference. An ended hold is remembered, so that the
-- same call is not paid twice. What a hold has spent is counted in rows (`run_costs.lua`).
--
-- KEYS, under the organisation's prefix, so that one script may use them together in a cluster:
--   run:ROOT         a hash: each node of the tree by id, as a JSON array whose columns are named
--                    below; `ID/children`, their ids; `owner`, the key that started it; `count` of
--                    nodes; `touched`
--   run:ROOT:holds   a hash by hold id: JSON [node, amounts, is open, label, parts], where the label
--                    is what an unsettled hold counts under and the parts are what was spent
--   run:ROOT:open    ids of open holds, sorted by when they expire
--   run:ROOT:ended   ids of ended holds, sorted by when they are forgotten
--   run:ROOT:costs   see `run_costs.lua`
--   runs, runs:OWNER ids of roots, sorted by when they are forgotten; of all, of one owner
-- A root's id has no dot, and a child's is its root's, a dot and a part of its own. Amounts are
-- calls, tokens and micro-dollars; a limit of -1 is none.
--
-- Each reply is a verdict, the dimension that decided or 0, and pairs of an id and its node.

local OK, UNKNOWN, FOREIGN, MISSING, OVER_LIMIT, IN_FLIGHT = 1, 2, 3, 4, 5, 6
local PAUSED, CANCELLED, ENDED, SETTLED, TOO_MANY, NEEDS_SHARE, NO_PRICE =
  7, 8, 9, 10, 11, 12, 13
-- What there is too much of, in place of a dimension.
local RUNS, NODES, DEPTHS, OPEN_HOLDS = 1, 2, 3, 4
local TIME = 4

local PARENT, NAME, DEPTH, STATE, BY, WHY, SOURCE, LIMIT, RESERVE, SPENT, HELD, SHARED, WANTED =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13
local STARTED_MS, ENDS_MS = 14, 15
local IS_OPEN, LABEL, PARTS = 3, 4, 5  -- of a hold

local MAX_RUNS, MAX_NODES, MAX_DEPTH = 100000, 1024, 8
local MAX_OPEN_HOLDS, MAX_ENDED_HOLDS, DUE_AT_ONCE = 4096, 16384, 500
local KEPT_MS, CLOSED_KEPT_MS = 7 * 24 * 3600000, 24 * 3600000
local HOLD_KEPT_MS, TOUCHED_EVERY_MS = 3600000, 3600000

local function root_of(id)
  return string.match(id, '^[^.]*')
end

local function keys_of(id)
  local nodes = PREFIX .. 'run:' .. root_of(id)
  return {
    nodes = nodes,
    holds = nodes .. ':holds',
    open = nodes .. ':open',
    ended = nodes .. ':ended',
    costs = nodes .. ':costs',
  }
end

local function read_node(tree, id)
  local text = redis.call('HGET', tree.nodes, id)
  return text and cjson.decode(text) or nil
end

local function write_node(tree, id, node)
  redis.call('HSET', tree.nodes, id, cjson.encode(node))
end

-- The field of a node's children.
local function children_of(id)
  return id .. '/children'
end

local function reply_of(verdict, dimension, id, node)
  return { verdict, dimension, id, cjson.encode(node) }
end

local function is_closed(node)
  return node[STATE] == 'cancelled' or node[STATE] == 'ended'
end

local function is_paused_by_limit(node)
  return node[STATE] == 'paused' and node[BY] == 'limit'
end

local function used(node, d)
  return node[SPENT][d] + node[HELD][d] + node[SHARED][d]
end

local function set_state(node, state, by, why, source)
  node[STATE], node[BY], node[WHY], node[SOURCE] = state, by, why, source
  node[WANTED] = { 0, 0, 0 }
end

-- Keeps the tree for `kept_ms` from now on, and its root in the lists.
local function keep(tree, id, kept_ms)
  local root, owner = root_of(id), redis.call('HGET', tree.nodes, 'owner')
  redis.call('HSET', tree.nodes, 'touched', int(now_ms))
  for _, key in pairs(tree) do
    redis.call('PEXPIRE', key, kept_ms)
  end
  for _, list in ipairs({ PREFIX .. 'runs', PREFIX .. 'runs:' .. owner }) do
    redis.call('ZREMRANGEBYSCORE', list, '-inf', int(now_ms))
    redis.call('ZADD', list, int(now_ms + kept_ms), root)
    redis.call('PEXPIRE', list, KEPT_MS)
  end
end

-- Adds to what a node has spent and holds. What a closed node gives back, its parent has again.
local function book(tree, id, spent, held)
  local node, change = read_node(tree, id), {}
  for d = 1, 3 do
    node[SPENT][d] = node[SPENT][d] + spent[d]
    node[HELD][d] = node[HELD][d] + held[d]
    change[d] = spent[d] + held[d]
  end
  write_node(tree, id, node)
  while is_closed(node) and node[PARENT] ~= '' do
    local parent = read_node(tree, node[PARENT])
    for d = 1, 3 do
      change[d] = node[LIMIT][d] >= 0 and change[d] or 0
      parent[SHARED][d] = parent[SHARED][d] + change[d]
    end
    write_node(tree, node[PARENT], parent)
    node = parent
  end
end

local function read_hold(tree, hold_id)
  local text = redis.call('HGET', tree.holds, hold_id)
  return text and cjson.decode(text) or nil
end

local function forget_hold(tree, hold_id)
  redis.call('HDEL', tree.holds, hold_id)
  redis.call('ZREM', tree.ended, hold_id)
end

-- Remembers a hold as ended, and what was spent of it; for as long as the tree is kept.
local function end_hold(tree, hold_id, id, amounts, label, parts)
  local counted = run_costs.add(tree.costs, id, parts)
  redis.call('HSET', tree.holds, hold_id, cjson.encode({ id, amounts, 0, label, counted }))
  redis.call('ZREM', tree.open, hold_id)
  redis.call('ZADD', tree.ended, int(now_ms + HOLD_KEPT_MS), hold_id)
  if redis.call('ZCARD', tree.ended) > MAX_ENDED_HOLDS then
    forget_hold(tree, redis.call('ZRANGE', tree.ended, 0, 0)[1])
  end
  for _, key in ipairs({ tree.holds, tree.ended, tree.costs }) do
    redis.call('PEXPIRE', key, KEPT_MS)
  end
end

local function negative(amounts)
  return { -amounts[1], -amounts[2], -amounts[3] }
end

-- Books what expired holds held as spent, and forgets what ended long ago.
local function expire_tree(tree)
  local due = redis.call('ZRANGEBYSCORE', tree.open, '-inf', int(now_ms), 'LIMIT', 0, DUE_AT_ONCE)
  for _, hold_id in ipairs(due) do
    local id, amounts, _, label = unpack(read_hold(tree, hold_id))
    book(tree, id, amounts, negative(amounts))
    local part = { label, amounts[1], amounts[2], amounts[3], 0 }
    end_hold(tree, hold_id, id, amounts, label, { part })
  end
  due = redis.call('ZRANGEBYSCORE', tree.ended, '-inf', int(now_ms), 'LIMIT', 0, DUE_AT_ONCE)
  for _, hold_id in ipairs(due) do
    forget_hold(tree, hold_id)
  end
end

-- The tree of a run and its node; or nil, nil and a reply that says what is wrong.
local function find(id, owner)
  local tree = keys_of(id)
  local is_owned_by = redis.call('HGET', tree.nodes, 'owner')
  if not is_owned_by then
    return nil, nil, { UNKNOWN, 0 }
  elseif is_owned_by ~= owner then
    return nil, nil, { FOREIGN, 0 }
  end
  expire_tree(tree)
  local node = read_node(tree, id)
  if not node then
    return nil, nil, { MISSING, 0 }
  end
  return tree, node, nil
end

-- The dimension in which so much more does not fit, and whether it would if calls in flight cost
-- nothing; nil where it fits.
local function lacking(node, amounts, is_final)
  if node[ENDS_MS] > 0 and now_ms >= node[ENDS_MS] then
    return TIME, false
  end
  local short = nil
  for d = 1, 3 do
    local kept = is_final and 0 or node[RESERVE][d]
    local over = used(node, d) + kept + amounts[d] - node[LIMIT][d]
    if node[LIMIT][d] >= 0 and amounts[d] > 0 and over > 0 then
      if over > node[HELD][d] then
        return d, false
      end
      short = short or d
    end
  end
  return short, true
end

-- Why a node takes no call and no child at present, whatever it would cost; nil where it does.
local function refusal_by_state(id, node)
  if node[STATE] == 'cancelled' then
    return reply_of(CANCELLED, 0, id, node)
  elseif node[STATE] == 'ended' then
    return reply_of(ENDED, 0, id, node)
  elseif node[STATE] == 'paused' and node[BY] ~= 'limit' then
    return reply_of(PAUSED, 0, id, node)
  end
  return nil
end

-- The refusal of what does not fit, which pauses the run; nil where it fits.
local function refusal_by_limit(tree, id, node, amounts, is_final)
  local dimension, is_in_flight = lacking(node, amounts, is_final)
  if not dimension then
    return nil
  elseif is_in_flight then
    return reply_of(IN_FLIGHT, dimension, id, node)
  end
  set_state(node, 'paused', 'limit', '', id)
  node[WANTED] = amounts
  write_node(tree, id, node)
  return reply_of(OVER_LIMIT, dimension, id, node)
end

-- Holds what a call may cost; or more, where the id holds already.
local function run_hold(id, owner, hold_id, amounts, ttl_ms, final, unpriced, label)
  local tree, node, wrong = find(id, owner)
  if wrong then
    return wrong
  elseif unpriced == 1 and node[LIMIT][3] >= 0 then
    return reply_of(NO_PRICE, 3, id, node)
  end
  local hold, held = read_hold(tree, hold_id), { 0, 0, 0 }
  if hold and hold[IS_OPEN] == 0 then
    return reply_of(SETTLED, 0, id, node)
  elseif hold then
    held = hold[2]
  end
  local more, is_more = {}, not hold
  for d = 1, 3 do
    more[d] = math.max(0, amounts[d] - held[d])
    is_more = is_more or more[d] > 0
  end
  if not is_more then
    return reply_of(OK, 0, id, node)
  end
  local refused = nil
  if not hold or is_closed(node) then  -- a call in flight may end while its run is paused
    refused = refusal_by_state(id, node)
  end
  refused = refused or refusal_by_limit(tree, id, node, more, final == 1)
  if refused then
    return refused
  elseif not hold and redis.call('ZCARD', tree.open) >= MAX_OPEN_HOLDS then
    return reply_of(TOO_MANY, OPEN_HOLDS, id, node)
  end
  if is_paused_by_limit(node) and final == 0 then
    set_state(node, 'running', '', '', '')
  end
  for d = 1, 3 do
    node[HELD][d] = node[HELD][d] + more[d]
    held[d] = held[d] + more[d]
  end
  write_node(tree, id, node)
  redis.call('HSET', tree.holds, hold_id, cjson.encode({ id, held, 1, label, {} }))
  redis.call('ZADD', tree.open, int(now_ms + ttl_ms), hold_id)
  if now_ms - hash_number(tree.nodes, 'touched') > TOUCHED_EVERY_MS then
    keep(tree, id, KEPT_MS)
  elseif not hold then
    -- The first hold makes these keys, which are to live no longer than the tree.
    redis.call('PEXPIRE', tree.holds, KEPT_MS)
    redis.call('PEXPIRE', tree.open, KEPT_MS)
  end
  return reply_of(OK, 0, id, node)
end

-- Ends a hold with what was spent, by parts, or books the difference where it has ended before.
local function run_settle(id, owner, hold_id, parts)
  local tree, node, wrong = find(id, owner)
  if wrong then
    return wrong
  end
  local hold, spent = read_hold(tree, hold_id), run_costs.spent_of(parts)
  local held, before, verdict = { 0, 0, 0 }, { 0, 0, 0 }, OK
  if hold and hold[IS_OPEN] == 1 then
    held = hold[2]
  elseif hold then
    before, verdict = run_costs.spent_of(hold[PARTS]), SETTLED
    run_costs.take_back(tree.costs, hold[1], hold[PARTS])
  end
  local more = { spent[1] - before[1], spent[2] - before[2], spent[3] - before[3] }
  id = hold and hold[1] or id
  book(tree, id, more, negative(held))
  end_hold(tree, hold_id, id, hold and hold[2] or spent, hold and hold[LABEL] or '', parts)
  return reply_of(verdict, 0, id, read_node(tree, id))
end

local function delete_tree(root)
  local tree = keys_of(root)
  local owner = redis.call('HGET', tree.nodes, 'owner')
  for _, key in pairs(tree) do
    redis.call('DEL', key)
  end
  redis.call('ZREM', PREFIX .. 'runs', root)
  if owner then
    redis.call('ZREM', PREFIX .. 'runs:' .. owner, root)
  end
end

-- Whether one more root is allowed; the one to be forgotten first makes way if it is closed.
local function may_add_root()
  local list = PREFIX .. 'runs'
  redis.call('ZREMRANGEBYSCORE', list, '-inf', int(now_ms))
  if redis.call('ZCARD', list) < MAX_RUNS then
    return true
  end
  local first = redis.call('ZRANGE', list, 0, 0)[1]
  local node = read_node(keys_of(first), first)
  if node and not is_closed(node) then
    return false
  end
  delete_tree(first)
  return true
end

local function new_node(parent, name, depth, limits, reserve, ends_ms)
  local function none()
    return { 0, 0, 0 }
  end
  return {
    parent, name, depth, 'running', '', '', '', limits, reserve, none(), none(), none(), none(),
    now_ms, ends_ms,
  }
end

-- Starts a run that is nobody's child. Repeating it returns the run as it is.
local function run_start(id, owner, name, limits, reserve, time_ms)
  local tree = keys_of(id)
  if redis.call('EXISTS', tree.nodes) == 1 then
    local _, node, wrong = find(id, owner)
    return wrong or reply_of(OK, 0, id, node)
  elseif not may_add_root() then
    return { TOO_MANY, RUNS }
  end
  local ends_ms = time_ms > 0 and now_ms + time_ms or 0
  local node = new_node('', name, 1, limits, reserve, ends_ms)
  redis.call('HSET', tree.nodes, 'owner', owner, 'count', 1)
  write_node(tree, id, node)
  keep(tree, id, KEPT_MS)
  return reply_of(OK, 0, id, node)
end

-- When a child ends: after its own time, and no later than its parent.
local function child_ends_ms(parent, time_ms)
  local own_ms = time_ms > 0 and now_ms + time_ms or parent[ENDS_MS]
  return parent[ENDS_MS] > 0 and math.min(own_ms, parent[ENDS_MS]) or own_ms
end

-- Opens a child and takes its share from its parent. Repeating it returns the child as it is.
local function run_child(id, owner, parent_id, name, limits, reserve, time_ms)
  local tree, parent, wrong = find(parent_id, owner)
  if wrong then
    return wrong
  end
  local node = read_node(tree, id)
  if node then
    return reply_of(OK, 0, id, node)
  end
  local share = {}
  for d = 1, 3 do
    if parent[LIMIT][d] >= 0 and limits[d] < 0 then
      return reply_of(NEEDS_SHARE, d, parent_id, parent)
    end
    share[d] = math.max(0, limits[d])
  end
  local refused = refusal_by_state(parent_id, parent)
  if refused then
    return refused
  elseif parent[DEPTH] >= MAX_DEPTH then
    return reply_of(TOO_MANY, DEPTHS, parent_id, parent)
  elseif hash_number(tree.nodes, 'count') >= MAX_NODES then
    return reply_of(TOO_MANY, NODES, parent_id, parent)
  end
  refused = refusal_by_limit(tree, parent_id, parent, share, false)
  if refused then
    return refused
  end
  for d = 1, 3 do
    parent[SHARED][d] = parent[SHARED][d] + share[d]
  end
  write_node(tree, parent_id, parent)
  local ends_ms = child_ends_ms(parent, time_ms)
  node = new_node(parent_id, name, parent[DEPTH] + 1, limits, reserve, ends_ms)
  redis.call('HINCRBY', tree.nodes, 'count', 1)
  write_node(tree, id, node)
  local siblings = redis.call('HGET', tree.nodes, children_of(parent_id))
  siblings = siblings and siblings .. ' ' .. id or id
  redis.call('HSET', tree.nodes, children_of(parent_id), siblings)
  keep(tree, id, KEPT_MS)
  return reply_of(OK, 0, id, node)
end

-- Ids of a node and of what lies below it, children before their parents; and these nodes and the
-- parent by id.
local function subtree(tree, top, node)
  local nodes, ids, first = { [top] = node }, {}, { top }
  for _, id in ipairs(first) do
    for child in string.gmatch(redis.call('HGET', tree.nodes, children_of(id)) or '', '%S+') do
      first[#first + 1] = child
      nodes[child] = read_node(tree, child)
    end
  end
  for i = #first, 1, -1 do
    ids[#ids + 1] = first[i]
  end
  if node[PARENT] ~= '' then
    nodes[node[PARENT]] = read_node(tree, node[PARENT])
  end
  return ids, nodes
end

local function replies_of(nodes, ids)
  local reply = { OK, 0 }
  for i = #ids, 1, -1 do
    reply[#reply + 1] = ids[i]
    reply[#reply + 1] = cjson.encode(nodes[ids[i]])
  end
  return reply
end

-- Closes nodes, children first, and gives back what they have not used.
local function close(nodes, ids, state, by, why)
  for _, id in ipairs(ids) do
    local node = nodes[id]
    local parent = nodes[node[PARENT]]
    if not is_closed(node) then
      set_state(node, state, by, why, '')
      for d = 1, 3 do
        if parent and node[LIMIT][d] >= 0 then
          parent[SHARED][d] = parent[SHARED][d] + used(node, d) - node[LIMIT][d]
        end
      end
    end
  end
end

local function pause(nodes, ids, top, by, why)
  for _, id in ipairs(ids) do
    local node = nodes[id]
    if node[STATE] == 'running' or is_paused_by_limit(node) then
      set_state(node, 'paused', by, why, top)
    end
  end
end

-- The run above a node on which somebody has paused it too; nil if there is none.
local function pause_above(nodes, id)
  local above = nodes[nodes[id][PARENT]]
  if above and above[STATE] == 'paused' and not is_paused_by_limit(above) then
    return above[SOURCE]
  end
  return nil
end

-- Lets a node run again, and what lies below it and was paused with it. What is paused from above
-- as well stays paused until that is raised.
local function resume(nodes, ids, top)
  local above = pause_above(nodes, top)
  for _, id in ipairs(ids) do
    local node = nodes[id]
    if node[STATE] == 'paused' and node[SOURCE] == top then
      if above then
        node[SOURCE] = above
      else
        set_state(node, 'running', '', '', '')
      end
    end
  end
end

-- Raises limits to what is given; -1 and less than before change nothing. A child's come from its
-- parent. Returns the dimension in which the parent has too little, nil where it is done.
local function raise(nodes, top, limits, time_ms)
  local node = nodes[top]
  local parent = nodes[node[PARENT]]
  local more = {}
  for d = 1, 3 do
    more[d] = node[LIMIT][d] >= 0 and math.max(0, limits[d] - node[LIMIT][d]) or 0
  end
  local ends_ms = node[ENDS_MS]
  if ends_ms > 0 and time_ms > 0 then
    ends_ms = math.max(ends_ms, node[STARTED_MS] + time_ms)
  end
  if parent then
    local dimension = lacking(parent, more, false)
    if dimension then
      return dimension
    end
    ends_ms = parent[ENDS_MS] > 0 and math.min(ends_ms, parent[ENDS_MS]) or ends_ms
  end
  for d = 1, 3 do
    node[LIMIT][d] = node[LIMIT][d] + more[d]
    if parent then
      parent[SHARED][d] = parent[SHARED][d] + more[d]
    end
  end
  node[ENDS_MS] = ends_ms
  return nil
end

-- Raises, pauses, cancels or ends a run and what lies below it. The reply has all these nodes.
local function run_change(id, owner, action, by, why, limits, time_ms)
  local tree, node, wrong = find(id, owner)
  if wrong then
    return wrong
  end
  local ids, nodes = subtree(tree, id, node)
  if action == 'raise' then
    local refused = refusal_by_state(id, node)
    if is_closed(node) then
      return refused
    end
    local dimension = raise(nodes, id, limits, time_ms)
    if dimension then
      return reply_of(OVER_LIMIT, dimension, node[PARENT], nodes[node[PARENT]])
    end
    resume(nodes, ids, id)
  elseif action == 'pause' then
    pause(nodes, ids, id, by, why)
  else
    close(nodes, ids, action, by, why)
  end
  for _, changed in ipairs(ids) do
    write_node(tree, changed, nodes[changed])
  end
  local parent_id = nodes[id][PARENT]
  if parent_id ~= '' then
    write_node(tree, parent_id, nodes[parent_id])
  end
  local is_over = parent_id == '' and is_closed(nodes[id])
  keep(tree, id, is_over and CLOSED_KEPT_MS or KEPT_MS)
  return replies_of(nodes, ids)
end

-- A run and what lies below it.
local function run_read(id, owner)
  local tree, node, wrong = find(id, owner)
  if wrong then
    return wrong
  end
  local ids, nodes = subtree(tree, id, node)
  return replies_of(nodes, ids)
end

-- A run and what lies below it, how many these are before them, and the rows of their costs behind.
local function run_cost(id, owner)
  local tree, node, wrong = find(id, owner)
  if wrong then
    return wrong
  end
  local ids, nodes = subtree(tree, id, node)
  local reply, shown = replies_of(nodes, ids), {}
  table.insert(reply, 3, #ids)
  for _, each in ipairs(ids) do
    shown[each] = true
  end
  for _, text in ipairs(run_costs.rows_of(tree.costs, shown)) do
    reply[#reply + 1] = text
  end
  return reply
end

-- The roots that an owner has used last.
local function run_list(owner, count)
  local list, reply = PREFIX .. 'runs:' .. owner, { OK, 0 }
  for _, root in ipairs(redis.call('ZREVRANGE', list, 0, count - 1)) do
    local text = redis.call('HGET', PREFIX .. 'run:' .. root, root)
    if text then
      reply[#reply + 1] = root
      reply[#reply + 1] = text
    end
  end
  return reply
end

return {
  run_start = run_start,
  run_child = run_child,
  run_hold = run_hold,
  run_settle = run_settle,
  run_change = run_change,
  run_read = run_read,
  run_cost = run_cost,
  run_list = run_list,
}
