#!lua name=killick_monitor_v3

-- How the monitor's records change. A Redis function does not roll back: every check comes before the first write.
-- Who took a partition last holds its token; who comes with another one is told so. All keys share one hash tag.
-- Another meaning of a function needs another number in the library's name: processes of two ages may share a server.

local FORMAT = '1'

local function guarded(change)
  return function(keys, args)
    if redis.call('HGET', keys[1], 'token') ~= args[1] then return {'fenced'} end
    return change(keys, args)
  end
end

-- KEYS: monitor   ARGV: token
-- Takes the partition: from now on only this token may write.
local function take(keys, args)
  local format = redis.call('HGET', keys[1], 'format')
  if format and format ~= FORMAT then return {'differs', format, FORMAT} end
  redis.call('HSET', keys[1], 'token', args[1], 'format', FORMAT)
  return {'ok'}
end

-- KEYS: monitor, sums, losses, duels
-- ARGV: token, place expected, new place, newest step, observations,
--       n, n × (field, sums), m, m fields of sums to forget, and the same of losses and of duels
-- Cursor and sums move together. A call that was done already, its answer lost, is not done twice: what it sets is
-- what is there.
local function advance(keys, args)
  local place = redis.call('HGET', keys[1], 'place') or '0-0'
  if place == args[3] then return {'ok'} end
  if place ~= args[2] then return {'moved', place} end
  local at = 6
  local function each(width, what)
    for i = 1, tonumber(args[at]) do what(at + width * (i - 1) + 1) end
    at = at + width * tonumber(args[at]) + 1
  end
  for hash = 2, 4 do
    each(2, function(i) redis.call('HSET', keys[hash], args[i], args[i + 1]) end)
    each(1, function(i) redis.call('HDEL', keys[hash], args[i]) end)
  end
  redis.call('HSET', keys[1], 'place', args[3], 'newest', args[4])
  redis.call('HINCRBY', keys[1], 'observations', args[5])
  return {'ok'}
end

-- KEYS: monitor, trails, needs   ARGV: token, set, n × (field, bytes)
-- A part of a set of trails: the set counts when `keep` names it.
local function trail(keys, args)
  for i = 3, #args, 2 do redis.call('HSET', keys[2], args[2] .. '/' .. args[i], args[i + 1]) end
  return {'ok'}
end

-- KEYS: monitor, trails, needs   ARGV: token, set, its place, its offset
-- From now on the monitor goes on from this set: what comes after it is still needed, other sets are not.
local function keep(keys, args)
  for _, field in ipairs(redis.call('HKEYS', keys[2])) do
    if string.sub(field, 1, #args[2] + 1) ~= args[2] .. '/' then redis.call('HDEL', keys[2], field) end
  end
  redis.call('HSET', keys[1], 'trails', args[2], 'trails_place', args[3])
  redis.call('HSET', keys[3], 'monitor', args[4])
  return {'ok'}
end

-- KEYS: monitor, needs   ARGV: token, name, offset ('' for none)
-- What is still needed of the blocks, by whom.
local function need(keys, args)
  if args[3] == '' then redis.call('HDEL', keys[2], args[2]) else redis.call('HSET', keys[2], args[2], args[3]) end
  return {'ok'}
end

-- KEYS: lease   ARGV: token, milliseconds
-- Who leads: this token, if nobody else does.
local function lease(keys, args)
  local holder = redis.call('GET', keys[1])
  if holder and holder ~= args[1] then return {'held', redis.call('PTTL', keys[1])} end
  redis.call('SET', keys[1], args[1], 'PX', args[2])
  return {'ok'}
end

-- KEYS: lease   ARGV: token
local function release(keys, args)
  if redis.call('GET', keys[1]) == args[1] then redis.call('DEL', keys[1]) end
  return {'ok'}
end

-- What stands in the way of a state's next revision: another monitor leads, Redis lost its tail, or it was written by
-- this very call, whose answer was lost. nil: nothing. A lease that ran out is nobody's: then the revision alone says
-- whether anyone else was at work.
local function hindered(lease, record, token, expected)
  local holder = redis.call('GET', lease)
  if holder and holder ~= token then return {'fenced'} end
  local revision = tonumber(redis.call('HGET', record, 'revision') or '0')
  if revision == tonumber(expected) + 1 and redis.call('HGET', record, 'by') == token then return {'ok'} end
  if revision ~= tonumber(expected) then return {'moved', revision} end
end

local function revise(record, token, expected, state)
  redis.call('HSET', record, 'revision', tonumber(expected) + 1, 'state', state, 'by', token)
  return {'ok'}
end

-- Lets requests go that were made because of the drift, or the skill, of another version than the one that answers. One
-- that somebody is at work on is let go by its consumer group too: else it would stay pending for ever.
local function let_go(requests, answers)
  local groups = redis.call('EXISTS', requests) == 1 and redis.call('XINFO', 'GROUPS', requests) or {}
  for _, entry in ipairs(redis.call('XRANGE', requests, '-', '+')) do
    local request = cjson.decode(entry[2][2])
    local moot = request.trigger == 'drift' or request.trigger == 'skill'
    if moot and request.evidence.version ~= tonumber(answers) then
      for _, group in ipairs(groups) do redis.call('XACK', requests, group[2], entry[1]) end
      redis.call('XDEL', requests, entry[1])
    end
  end
end

-- KEYS: lease, drift, losses, requests
-- ARGV: token, revision expected, state, n, n losses, losses to forget (the oldest first, of all), the version that
--       answers from now on ('' where none other does), requests …
-- State of the detectors, the losses that they were fed and what they ask for move together.
local function drift(keys, args)
  local way = hindered(keys[1], keys[2], args[1], args[2])
  if way then return way end
  local n = tonumber(args[4])
  for i = 5, 4 + n do redis.call('RPUSH', keys[3], args[i]) end
  if tonumber(args[5 + n]) > 0 then redis.call('LTRIM', keys[3], args[5 + n], -1) end
  if args[6 + n] ~= '' then let_go(keys[4], args[6 + n]) end
  for i = 7 + n, #args do redis.call('XADD', keys[4], '*', 'request', args[i]) end
  return revise(keys[2], args[1], args[2], args[3])
end

-- KEYS: lease, the state's record, requests   ARGV: token, revision expected, state, requests …
-- A state and what is asked for because of it move together.
local function change(keys, args)
  local way = hindered(keys[1], keys[2], args[1], args[2])
  if way then return way end
  for i = 4, #args do redis.call('XADD', keys[3], '*', 'request', args[i]) end
  return revise(keys[2], args[1], args[2], args[3])
end

redis.register_function('killick_monitor_v3_take', take)
redis.register_function('killick_monitor_v3_advance', guarded(advance))
redis.register_function('killick_monitor_v3_trail', guarded(trail))
redis.register_function('killick_monitor_v3_keep', guarded(keep))
redis.register_function('killick_monitor_v3_need', guarded(need))
redis.register_function('killick_monitor_v3_lease', lease)
redis.register_function('killick_monitor_v3_release', release)
redis.register_function('killick_monitor_v3_drift', drift)
redis.register_function('killick_monitor_v3_change', change)
