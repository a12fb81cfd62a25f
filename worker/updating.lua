#!lua name=killick_updating_v1

-- How requests for retraining are taken, kept and answered. A Redis function does not roll back: every check comes
-- before the first write. All keys share the model's hash tag.
--
-- The stream's consumer group is used by its list of pending entries alone: an entry that is pending belongs to the
-- worker that is retraining because of it, until that worker has been silent for too long. Entries are chosen by id,
-- not in their order, as some have to wait longer than others.

local GROUP = 'retrainers'

local function group(key)
  redis.pcall('XGROUP', 'CREATE', key, GROUP, '0', 'MKSTREAM')
end

-- The pending entries as a table: id → {worker, idle, deliveries}.
local function pending(key)
  group(key)
  local found = {}
  for _, entry in ipairs(redis.call('XPENDING', key, GROUP, '-', '+', 10000)) do
    found[entry[1]] = {entry[2], entry[3], entry[4] - 1} -- to be put there counts as a delivery, too
  end
  return found
end

local function id_of(entry)
  return cjson.decode(entry[2][2]).id
end

-- KEYS: requests   ARGV: request
-- Adds a request; one that is there already is this call again.
local function ask(keys, args)
  group(keys[1])
  local id = cjson.decode(args[1]).id
  for _, entry in ipairs(redis.call('XRANGE', keys[1], '-', '+')) do
    if id_of(entry) == id then return {'ok', entry[1]} end
  end
  return {'ok', redis.call('XADD', keys[1], '*', 'request', args[1])}
end

-- KEYS: requests
-- Every request: entry, request, worker ('' while it waits), silence of that worker (ms), how often it was taken.
local function waiting(keys)
  local by, found = pending(keys[1]), {'ok'}
  for _, entry in ipairs(redis.call('XRANGE', keys[1], '-', '+')) do
    local taken = by[entry[1]] or {'', 0, 0}
    table.insert(found, {entry[1], entry[2][2], taken[1], taken[2], taken[3]})
  end
  return found
end

-- KEYS: requests   ARGV: worker, silence after which a worker counts as dead (ms), entries …
-- Takes the entries, unless another worker is at work on any request of the model.
local function claim(keys, args)
  local by = pending(keys[1])
  for _, taken in pairs(by) do
    if taken[1] ~= args[1] and taken[2] < tonumber(args[2]) then return {'busy', taken[1]} end
  end
  local found = {'ok'}
  for i = 3, #args do
    if #redis.call('XRANGE', keys[1], args[i], args[i]) > 0 then
      local mine = by[args[i]] and by[args[i]][1] == args[1]
      if not mine then redis.call('XCLAIM', keys[1], GROUP, args[1], 0, args[i], 'FORCE') end
      table.insert(found, args[i])
    end
  end
  return found
end

-- KEYS: requests, progress   ARGV: worker, progress (JSON), its time to live (ms), entries …
-- Says that the worker lives; the entries that are still its own and still asked for.
local function keep(keys, args)
  local by, found = pending(keys[1]), {'ok'}
  for i = 4, #args do
    local taken = by[args[i]]
    if taken and taken[1] ~= args[1] then return {'fenced', taken[1]} end
    if taken and #redis.call('XRANGE', keys[1], args[i], args[i]) > 0 then
      redis.call('XCLAIM', keys[1], GROUP, args[1], 0, args[i], 'IDLE', 0, 'JUSTID')
      table.insert(found, args[i])
    end
  end
  redis.call('SET', keys[2], args[2], 'PX', args[3])
  return found
end

-- KEYS: requests, progress   ARGV: worker, entries …
-- Lets requests wait again, for any worker; once more taken does not count against them.
local function leave(keys, args)
  local by = pending(keys[1])
  for i = 2, #args do
    if by[args[i]] and by[args[i]][1] == args[1] then redis.call('XACK', keys[1], GROUP, args[i]) end
  end
  redis.call('DEL', keys[2])
  return {'ok'}
end

-- Who has taken up one of the entries in the worker's place; nil if nobody has.
local function other(key, worker, args, first)
  local by = pending(key)
  for i = first, #args do
    if by[args[i]] and by[args[i]][1] ~= worker then return {'fenced', by[args[i]][1]} end
  end
end

-- Why no verdict may be written on entries: another worker has them, or all were taken back. nil if it may.
local function unwanted(key, worker, args, first)
  local fenced = other(key, worker, args, first)
  if fenced or #args < first then return fenced end
  for i = first, #args do
    if #redis.call('XRANGE', key, args[i], args[i]) > 0 then return nil end
  end
  return {'taken back'}
end

-- KEYS: requests, draft   ARGV: worker, verdict, entries …
-- Keeps a verdict whose version is about to be registered.
local function draft(keys, args)
  local refused = unwanted(keys[1], args[1], args, 3)
  if refused then return refused end
  redis.call('SET', keys[2], args[2])
  return {'ok'}
end

-- KEYS: requests, verdicts, order, versions, spent
-- ARGV: worker, verdict's id, verdict, time (ms), version ('' for none), what was spent before, what it spends, how many
--       verdicts are kept, entries …
-- Writes a verdict, and what its trial spends. A verdict that is there is this call again.
local function write(keys, args)
  if redis.call('HEXISTS', keys[2], args[2]) == 1 then return {'ok'} end
  local refused = unwanted(keys[1], args[1], args, 9)
  if refused then return refused end
  local spent = tonumber(redis.call('GET', keys[5]) or '0')
  if math.abs(spent - tonumber(args[6])) > 1e-12 then return {'spent', tostring(spent)} end
  redis.call('HSET', keys[2], args[2], args[3])
  redis.call('ZADD', keys[3], args[4], args[2])
  if args[5] ~= '' then redis.call('HSET', keys[4], args[5], args[2]) end
  if tonumber(args[7]) > 0 then redis.call('SET', keys[5], string.format('%.17g', spent + tonumber(args[7]))) end
  for _, old in ipairs(redis.call('ZRANGE', keys[3], 0, -1 - tonumber(args[8]))) do
    redis.call('HDEL', keys[2], old)
    redis.call('ZREM', keys[3], old)
  end
  return {'ok'}
end

-- KEYS: requests, progress, draft   ARGV: worker, entries …
-- Takes requests from the queue that a verdict has answered.
local function answered(keys, args)
  local fenced = other(keys[1], args[1], args, 2)
  if fenced then return fenced end
  for i = 2, #args do
    redis.call('XACK', keys[1], GROUP, args[i])
    redis.call('XDEL', keys[1], args[i])
  end
  redis.call('DEL', keys[2], keys[3])
  return {'ok'}
end

-- KEYS: requests   ARGV: request's id
-- Takes a request back; whoever is at work on it alone gives up when it next says that it lives.
local function cancel(keys, args)
  for _, entry in ipairs(redis.call('XRANGE', keys[1], '-', '+')) do
    if id_of(entry) == args[1] then return {'ok', redis.call('XDEL', keys[1], entry[1])} end
  end
  return {'unknown'}
end

redis.register_function('killick_updating_v1_ask', ask)
redis.register_function('killick_updating_v1_waiting', waiting)
redis.register_function('killick_updating_v1_claim', claim)
redis.register_function('killick_updating_v1_keep', keep)
redis.register_function('killick_updating_v1_leave', leave)
redis.register_function('killick_updating_v1_draft', draft)
redis.register_function('killick_updating_v1_write', write)
redis.register_function('killick_updating_v1_answered', answered)
redis.register_function('killick_updating_v1_cancel', cancel)
